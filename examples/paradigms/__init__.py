"""MultiBench's training paradigms as systems, which any benchmark of vectors may compare.

`objectives` have a recipe's own network around concatenation, or around a code, and one more loss;
`blended` a head for each modality; `searched` encoders and a fusion of its own.
"""
