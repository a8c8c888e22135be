"""Tables 1 to 4 of Ni et al. (2023, arXiv:2306.16645) as printed, and what each row is here."""

from collections.abc import Mapping

from deq_fusion.examples.studies.paper_tables.rows import Group, PaperTable, Row, Shown

HOST = "MM-Dynamics (unimodals/mm_dynamics.py)"
DEQS = ("deq", "deq_paper")
ALL, ALL_ROWS = "mR+D+miR", "all"
OMICS = "other patients and features unless they are MOGONET's"
TABLE_1 = PaperTable(
    title="BRCA",
    dataset="brca",
    scores=(
        Shown("accuracy", "accuracy"),
        Shown("weighted F1", "f1_weighted"),
        Shown("macro F1", "f1_macro"),
    ),
    rows=(
        Row(
            "GRidge",
            ALL,
            "74.5±1.6 72.6±2.5 65.6±2.5",
            ("gridge",),
            ALL_ROWS,
            "unimodals/gridge.py, a floor",
        ),
        Row(
            "GMU",
            ALL,
            "80.0±3.9 79.8±5.8 74.6±5.8",
            ("gmu",),
            ALL_ROWS,
            f"fusions/gated.py in {HOST}",
        ),
        Row(
            "CF",
            ALL,
            "81.5±0.8 81.5±0.9 77.1±0.9",
            ("cross",),
            ALL_ROWS,
            f"fusions/cross.py in {HOST}",
        ),
        Row(
            "MOGONET",
            ALL,
            "82.9±1.8 82.5±1.7 77.4±1.7",
            ("mogonet",),
            ALL_ROWS,
            "unimodals/mogonet.py, a system",
        ),
        Row(
            "TMC",
            ALL,
            "84.2±0.5 84.4±0.9 80.6±0.9",
            ("evidential",),
            ALL_ROWS,
            f"fusions/evidential.py in {HOST}",
        ),
        Row(
            "MM-Dynamics",
            ALL,
            "87.7±0.3 88.0±0.5 84.5±0.5",
            ("concat",),
            ALL_ROWS,
            f"concatenation in {HOST}",
        ),
        *(
            Row(
                "MM-Dynamics + DEQ Fusion", marks, figures, DEQS, group, f"fusions/deq.py in {HOST}"
            )
            for marks, group, figures in (
                ("D+miR", "D+miR", "78.9±1.6 79.2±2.3 75.8±3.0"),
                ("mR+miR", "mR+miR", "87.6±0.7 88.1±0.7 85.1±1.7"),
                ("mR+D", "mR+D", "88.7±0.7 89.3±0.7 86.9±0.9"),
                (ALL, ALL_ROWS, "89.1±0.7 89.7±0.7 87.6±1.0"),
            )
        ),
    ),
    groups={
        name: Group(OMICS, modalities=views, published={"sizes": "authors"})
        for name, views in (
            (ALL_ROWS, None),
            ("D+miR", ("methylation", "miRNA")),
            ("mR+miR", ("mRNA", "miRNA")),
            ("mR+D", ("mRNA", "methylation")),
        )
    },
    parts="612/-/263",
    protocol=(
        "the files' split, no validation part, 10 runs; of DEQ fusion the best of 51 looks at the "
        "test part; other rows are quoted from Han et al. (2022)"
    ),
    on_test=True,
    official=True,
    runs=10,
)

VGG, BERT, RESNET = "vgg_word2vec", "vgg_bert", "resnet_bert"
BOTH = ("text_weights", "image_weights")
MAXOUT = "MultiBench's maxout networks (unimodals/common_models.py)"
FINE_TUNED = "BERT and ResNet (unimodals/pretrained.py)"
VGG_NAME = "VGGNet + Word2vec"
TABLE_2 = PaperTable(
    title="MM-IMDB",
    dataset="imdb",
    scores=(Shown("micro F1", "f1_micro", ".2%"), Shown("macro F1", "f1_macro", ".2%")),
    rows=(
        Row("Unimodal Image (VGGNet)", "I", "40.31 25.76", ("only image",), VGG, MAXOUT),
        Row("Unimodal Text (Word2vec)", "T", "59.37 47.59", ("only text",), VGG, MAXOUT),
        Row(
            f"Early Fusion ({VGG_NAME})",
            "I+T",
            "56.00 49.36",
            ("early",),
            VGG,
            "one maxout network on all inputs, a system",
        ),
        Row(
            *(f"Late Fusion ({VGG_NAME})", "I+T", "59.02 50.27", ("concat", "late"), VGG),
            f"MultiBench's late fusion concatenates encodings: concat in {MAXOUT}",
        ),
        Row(
            f"DynMM ({VGG_NAME})",
            "I+T",
            "60.35 51.60",
            ("dynmm",),
            VGG,
            "unimodals/dynmm.py, a system",
        ),
        Row(
            f"DEQ Fusion ({VGG_NAME})",
            "I+T",
            "61.52 53.38",
            DEQS,
            VGG,
            f"fusions/deq.py on {MAXOUT}",
        ),
        Row(
            "Unimodal Image (ResNet152)",
            "I",
            "45.65 29.91",
            ("only image",),
            RESNET,
            FINE_TUNED,
            weights=BOTH[1:],
        ),
        Row(
            "Unimodal Text (BERT)",
            "T",
            "64.81 58.00",
            ("only text",),
            RESNET,
            FINE_TUNED,
            weights=BOTH[:1],
        ),
        Row(
            "MMBT (ResNet152 + BERT)",
            "I+T",
            "66.80 61.60",
            ("mmbt",),
            RESNET,
            "unimodals/mmbt.py, a system",
            weights=BOTH,
        ),
        Row(
            *(
                "PMF-large (ViT-large + BERT-large)",
                "I+T",
                "66.72 61.66",
                ("pmf",),
                RESNET,
                "unimodals/pmf.py, a system",
            ),
            differs="base networks where weights are given",
            weights=("text_weights", "vit_weights"),
        ),
        Row(
            "DEQ Fusion (VGGNet + BERT)",
            "I+T",
            "66.15 59.32",
            DEQS,
            BERT,
            "fusions/deq.py on BERT and VGG's features",
            weights=BOTH[:1],
        ),
        Row(
            "DEQ Fusion (ResNet152 + BERT)",
            "I+T",
            "67.59 62.14",
            DEQS,
            RESNET,
            f"fusions/deq.py on {FINE_TUNED}",
            weights=BOTH,
        ),
    ),
    groups={
        VGG: Group("features of the file at hand", {"encoders": VGG}),
        RESNET: Group("plots and posters of the folder", {"encoders": RESNET}),
        BERT: Group("image features of the file at hand", {"encoders": BERT}),
    },
    parts="15552/2608/7799",
    protocol="single runs; the epoch is selected on validation data, as here",
)

SEQUENCES, CM_BERT = "sequences", "cm_bert"
ENCODED = "between an encoder for each modality and a linear head"
CM_BERT_HOST = "CM-BERT (unimodals/cm_bert.py)"
BERT_WEIGHTS = ("text_weights",)
TABLE_3 = PaperTable(
    title="CMU-MOSI",
    dataset="mosi",
    scores=(
        Shown("acc-7", "acc7"),
        Shown("acc-2", "acc2"),
        Shown("F1", "f1"),
        Shown("MAE", "mae", ".3f", lower=True),
        Shown("corr", "corr", ".3f"),
    ),
    rows=(
        Row(
            "Early Fusion LSTM",
            "T+A+V",
            "33.7 75.3 75.2 1.023 0.608",
            ("ef_lstm",),
            SEQUENCES,
            f"fusions/early_lstm.py {ENCODED}",
        ),
        Row(
            "LRMF",
            "T+A+V",
            "32.8 76.4 75.7 0.912 0.668",
            ("low_rank",),
            SEQUENCES,
            f"fusions/common_fusions.py {ENCODED}",
        ),
        Row(
            "MFN",
            "T+A+V",
            "34.1 77.4 77.3 0.965 0.632",
            ("mfn",),
            SEQUENCES,
            f"fusions/memory_fusion.py {ENCODED}",
        ),
        Row(
            "MARN",
            "T+A+V",
            "34.7 77.1 77.0 0.968 0.625",
            ("marn",),
            SEQUENCES,
            f"fusions/multi_attention.py {ENCODED}",
        ),
        Row(
            "RMFN",
            "T+A+V",
            "38.3 78.4 78.0 0.922 0.681",
            ("rmfn",),
            SEQUENCES,
            f"fusions/multistage.py {ENCODED}",
        ),
        Row(
            "MFM",
            "T+A+V",
            "36.2 78.1 78.1 0.951 0.662",
            ("mfm",),
            SEQUENCES,
            "unimodals/mfm.py, a system",
        ),
        Row(
            "MCTN",
            "T+A+V",
            "35.6 79.3 79.1 0.909 0.676",
            ("mctn",),
            SEQUENCES,
            "unimodals/mctn.py, a system",
        ),
        Row(
            "MulT",
            "T+A+V",
            "40.0 83.0 82.8 0.871 0.698",
            ("mult",),
            SEQUENCES,
            f"fusions/mult.py {ENCODED}",
        ),
        Row(
            "BERT",
            "T",
            "41.5 83.2 82.3 0.784 0.774",
            ("only text",),
            CM_BERT,
            "BERT and a linear map (unimodals/pretrained.py)",
            weights=BERT_WEIGHTS,
        ),
        Row(
            "CM-BERT",
            "T+A",
            "44.9 84.5 84.5 0.729 0.791",
            ("weighted_sum",),
            CM_BERT,
            f"fusions/weighted_sum.py in {CM_BERT_HOST}",
            weights=BERT_WEIGHTS,
        ),
        Row(
            "CM-BERT + DEQ Fusion",
            "T+A",
            "46.1 85.4 85.4 0.737 0.797",
            DEQS,
            CM_BERT,
            f"fusions/deq.py in {CM_BERT_HOST}",
            weights=BERT_WEIGHTS,
        ),
    ),
    groups={
        SEQUENCES: Group(
            "features of the file at hand (of mosi_utterance.npz one vector an utterance)",
            without=frozenset({"host", "text_weights", "fusion_lr"}),
        ),
        CM_BERT: Group(
            "audio of the file at hand", {"host": "cm_bert"}, without=frozenset({"file"})
        ),
    },
    parts="1284/229/686",
    protocol=(
        "means of five runs, the epoch selected on validation data, as here; all but the last row "
        "are quoted from Yang et al. (2020)"
    ),
)

MUTAN, MCAN = "mutan", "mcan"
TABLE_4 = PaperTable(
    title="VQA-v2",
    dataset="vqa",
    scores=(
        Shown("yes/no", "accuracy_yes_no", ".2%"),
        Shown("number", "accuracy_number", ".2%"),
        Shown("other", "accuracy_other", ".2%"),
        Shown("overall", "accuracy", ".2%"),
    ),
    rows=(
        Row(
            "Mutan (Skip-thoughts + BottomUp)",
            "",
            "82.40 42.63 54.85 63.73",
            ("mutan",),
            MUTAN,
            "fusions/mutan.py in MutanAtt (unimodals/mutan_vqa.py)",
        ),
        Row(
            "DEQ Fusion (Skip-thoughts + BottomUp)",
            "",
            "82.91 45.40 55.70 64.57",
            DEQS,
            MUTAN,
            "fusions/deq.py in MutanAtt (unimodals/mutan_vqa.py)",
        ),
        Row(
            "MCAN (GloVe + BottomUp)",
            "",
            "84.67 48.44 58.52 67.02",
            ("sum",),
            MCAN,
            "fusions/weighted_sum.py in MCAN (unimodals/mcan.py)",
        ),
        Row(
            "DEQ Fusion (GloVe + BottomUp)",
            "",
            "85.17 49.07 58.69 67.38",
            DEQS,
            MCAN,
            "fusions/deq.py in MCAN (unimodals/mcan.py)",
        ),
    ),
    groups={
        MUTAN: Group(
            "other features, no skip-thought weights",
            {"host": "mutan_att"},
        ),
        MCAN: Group(
            "other features, no GloVe vectors; the paper's MCAN is large",
            {"host": "mcan"},
        ),
    },
    parts="443757/-/214354",
    protocol="the validation part of VQA-v2 is monitored and reported: there is no third part",
    on_test=True,
)

TABLES: Mapping[int, PaperTable] = {1: TABLE_1, 2: TABLE_2, 3: TABLE_3, 4: TABLE_4}
