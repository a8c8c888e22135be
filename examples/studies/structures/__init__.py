"""Study of synthetic sets of known structure: which of them can a fusion learn, from how much?"""
