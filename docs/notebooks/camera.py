# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your camera
#
# From a folder of photos and depth maps, as a depth camera leaves it, to tokens, a depth map and a point cloud.
#
# `camera/train/images/*.png` with `camera/train/depth/*.png` (16 bits, millimetres), the same under `camera/test`, and `camera/depthtokens.json` with scale and range. Rendered rooms
# stand in for your camera's: skip the next cell, and point `ROOT` at your own folder.

# %%
from depthtokens.scenes import write_folder

ROOT = write_folder("camera", count=120, test=12)

# %% [markdown]
# ## Is it fit for training?

# %%
from depthtokens.data.check import check

import depthtokens as dt

for line in check(dt.Folder(ROOT, "train")).lines():
    print(line)

# %% [markdown]
# ## Learn seven words
#
# `views=1` shows the plain images, so their patch features are computed once. The bundled CLIP has only seen rendered scenes, and `dense`, `scale` and `lr` are what suits it: for
# photographs take `clip="RN50"` and leave these three out.

# %%
experiment = dt.Experiment(
    clip="bundled", data=f"folder:{ROOT}", views=1, dense="value", scale=40.0, lr=1e-2, epochs=15, workers=0, cache=False, out="runs/camera"
)
result = dt.train(experiment, notify=print)
[round(loss, 2) for loss in result.epoch_losses]

# %% [markdown]
# The tokens are a file of a few kilobytes, without CLIP:

# %%
result.tokens, result.tokens.stat().st_size

# %% [markdown]
# ## Are they any good?
#
# Beside two controls that never look at the image. If the first line does not beat the third, it is the room that was learned, not the picture.

# %%
# !depthtokens evaluate runs/camera --data folder:camera --workers 0 2> progress.txt

# %% [markdown]
# ## A depth map

# %%
model = dt.DepthTokens.load("runs/camera/tokens.safetensors")
depth = model.predict("camera/test/images/000003.png")
depth

# %%
depth.save("depth.png")  # 16 bits, millimetres
depth.side_by_side()

# %% [markdown]
# ## A point cloud
#
# In metres, with the photo's colours: x right, y down, z forward. The camera is a pinhole; here it spans 60 degrees from left to right, and `--intrinsics FX FY CX CY` gives your own.

# %%
# !depthtokens predict runs/camera camera/test/images/000003.png --formats ply --fov 60 --out cloud 2> progress.txt

# %%
import matplotlib.pyplot as plt
import numpy as np
import trimesh

points = trimesh.load("cloud/000003_cloud.ply")
x, y, z = np.asarray(points.vertices).T
figure, axes = plt.subplots(1, 2, figsize=(9, 4))
axes[0].scatter(x, -y, s=1, c=np.asarray(points.colors)[:, :3] / 255)
axes[0].set(title="from the front", xlabel="x, m", ylabel="up, m", aspect="equal")
axes[1].scatter(x, z, s=1, c=np.asarray(points.colors)[:, :3] / 255)
axes[1].set(title="from above", xlabel="x, m", ylabel="z, m", aspect="equal")
figure.tight_layout()
