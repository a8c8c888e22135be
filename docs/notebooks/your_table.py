# %% [markdown]
# # Compare fusions on your table
#
# 178 wines, 13 measurements each, three growers. The columns are cut in two, as if two labs had
# sent a table each: what a wine tastes of, and what it looks like. Which fusion should join them?

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
from sklearn.datasets import load_wine

from deq_fusion import compare_data

X, y = load_wine(return_X_y=True, as_frame=True)
looks = ["color_intensity", "hue", "od280/od315_of_diluted_wines"]
tables = {"taste": X.drop(columns=looks), "looks": X[looks]}

# %% [markdown]
# ## One call
# Every fusion gets the same encoders, head, budget and splits. The epoch is chosen on validation
# data, and the test part is read once. `linear` is a linear model on all columns, the floor that
# a network should beat; `only looks` is one table alone.

# %%
folder = Path(mkdtemp())
fusions = ["deq", "concat", "late"]
found = compare_data(tables, y, fusions, runs=6, epochs=30, output=folder, progress=False)
found

# %% [markdown]
# `minus concat` is the mean difference from concatenation in the same splits, with its 95 %
# interval: where that holds 0, the two do not differ by more than chance. `found.write(folder)`,
# or `output=` as here, writes a page with pictures, and the table as Markdown and csv.

# %%
print(*sorted(file.name for file in folder.glob("results.*")))

# %% [markdown]
# ## A picture
# The table is a data frame, too, for whatever you draw with.

# %%
table = found.to_dataframe().iloc[::-1]
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
low, high = table["mean"] - table["low"], table["high"] - table["mean"]
axes.errorbar(table["mean"], table["method"], xerr=[low, high], fmt="o", color="#3d8a5a")
axes.set(xlabel=f"{found.score.name}, mean of six splits and its 95 % interval")

# %% [markdown]
# ## Take the best one home
# Best is what was best on validation data. `refit` trains it on all rows, and gives a classifier
# of scikit-learn's kind, which `save` writes to a file that no reading of can run code.

# %%
best = found.best()
model = best.refit()
model.save(folder / "wine.safetensors")
best

# %%
print(model.predict({name: rows.head(3) for name, rows in tables.items()}))
