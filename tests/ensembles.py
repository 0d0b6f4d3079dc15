"""A configuration with ensembles: of named heads, with weights by validation, and of the best trials of a sweep."""

CONFIG = """
[data]
root = "photos"
seed = 1

[bases.a]
name = "VGG16"
input_size = 32
weights = "random"
precision = "float32"
batch_size = 8
layers = ["block4_pool", "block5_pool"]

[bases.b]
name = "VGG16"
input_size = 40
weights = "random"
precision = "float32"
batch_size = 8

[heads.mix]
kind = "ensemble"
heads = ["small", "logreg@a", "logreg@b"]

[heads.logreg]
kind = "sklearn"
estimator = "LogisticRegression"
base = ["a", "b"]

[heads.ridge]
kind = "sklearn"
estimator = "RidgeClassifierCV"
refit = true

[heads.small]
kind = "dense"
layers = ["block4_pool", "block5_pool"]
pool = "avg"
units = [8]
epochs = 4
dropout = 0.0
optimizer = "adam"
learning_rate = 1e-2

[heads.weighted]
kind = "ensemble"
heads = ["logreg@a", "ridge"]
weights = "validation"

[heads.best]
kind = "ensemble"
sweep = "width"
best = 2

[sweeps.width]
head = "small"
grid = { units = [[], [4], [8]] }
"""
ALL = ["best", "logreg@a", "logreg@b", "mix", "ridge", "small", "weighted", "width"]
