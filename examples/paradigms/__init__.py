"""MultiBench's training paradigms as systems, which any benchmark of vectors may compare.

`objectives` have a recipe's own network around concatenation, or around a code, and one more loss;
`blended` a head for each modality; `searched` encoders and a fusion of its own. `balanced` is
training that keeps modalities in balance and `experts` a mixture of experts, both around any
fusion: `--fusions ogm_ge --option ogm_ge.fusion=deq`.
"""
