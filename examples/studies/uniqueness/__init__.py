"""The study of uniqueness: from how many samples do solvers and starts disagree?"""
