"""Values of other libraries that hold models, datasets and images."""

from __future__ import annotations

import importlib.util

from tests.reuse.values import each_case_of, other, same

SKLEARN_SETUP = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KDTree, KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

X = np.random.default_rng(0).normal(size=(60, 3))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)

class Scaled(TransformerMixin, BaseEstimator):
    def __init__(self, factor=2):
        self.factor = factor
    def fit(self, x, y=None):
        self.mean_ = x.mean()
        return self
    def transform(self, x):
        return self.factor * x

def doubled(x): return 2 * x
def halved(x): return x / 2

def fitted(model, x=X, y=Y):
    return model.fit(x, y)

def used(model):
    model.predict(X)
    repr(model)
    model._repr_html_()
    return model
"""

SKLEARN = [
    other("parameters", "LogisticRegression()", "LogisticRegression(C=2.0)"),
    other("types of parameters", "LogisticRegression(C=1)", "LogisticRegression(C=1.0)"),
    other("fitted and not", "LogisticRegression()", "fitted(LogisticRegression())"),
    other(
        "fitted to other data", "fitted(LinearRegression())", "fitted(LinearRegression(), X + 1)"
    ),
    same("fitted again", "fitted(LinearRegression())", "fitted(fitted(LinearRegression()))"),
    same(
        "a model that was used",
        "fitted(LogisticRegression())",
        "used(fitted(LogisticRegression()))",
    ),
    same(
        "a tree fitted again",
        "fitted(DecisionTreeClassifier(random_state=0))",
        "fitted(fitted(DecisionTreeClassifier(random_state=0)))",
    ),
    other(
        "seeds of a forest",
        "fitted(RandomForestClassifier(3, random_state=0))",
        "fitted(RandomForestClassifier(3, random_state=1))",
    ),
    same(
        "a forest fitted again",
        "fitted(RandomForestClassifier(3, random_state=0))",
        "fitted(fitted(RandomForestClassifier(3, random_state=0)))",
    ),
    same(
        "boosting fitted again",
        "fitted(HistGradientBoostingClassifier(max_iter=2, random_state=0))",
        "fitted(fitted(HistGradientBoostingClassifier(max_iter=2, random_state=0)))",
    ),
    other("neighbours", "fitted(KNeighborsClassifier(3))", "fitted(KNeighborsClassifier(4))"),
    other("trees of points", "KDTree(X)", "KDTree(X + 1)"),
    other(
        "names of steps",
        "Pipeline([('a', StandardScaler())])",
        "Pipeline([('b', StandardScaler())])",
    ),
    other(
        "parameters of a step",
        "fitted(make_pipeline(Scaled(2), LogisticRegression()))",
        "fitted(make_pipeline(Scaled(3), LogisticRegression()))",
    ),
    other("functions of a step", "FunctionTransformer(doubled)", "FunctionTransformer(halved)"),
    other(
        "columns",
        "ColumnTransformer([('a', Scaled(), [0])])",
        "ColumnTransformer([('a', Scaled(), [1])])",
    ),
    other(
        "searches",
        "GridSearchCV(Scaled(), {'factor': [1]})",
        "GridSearchCV(Scaled(), {'factor': [1, 2]})",
    ),
    other("splits", "KFold(3)", "KFold(3, shuffle=True, random_state=0)"),
    other("categories", "OneHotEncoder().fit([['a']])", "OneHotEncoder().fit([['b']])"),
    same(
        "clusters found again",
        "KMeans(2, n_init=1, random_state=0).fit(X)",
        "KMeans(2, n_init=1, random_state=0).fit(X.copy())",
    ),
]

LABELLED_SETUP = """
import io
import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
GRID = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("y", "x"), coords={"x": [10, 20, 30]},
                    name="t", attrs={"unit": "m"})
SET = xr.Dataset({"t": GRID, "n": ("y", [1, 2])})

def read(value, *names):
    for name in names:
        getattr(value, name)
    return value

def encoded(value, **encoding):
    value = value.copy()
    value.encoding.update(encoding)
    return value

def saved(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    stream.seek(0)
    return Image.open(stream)

def stored(image, folder):
    import os, tempfile
    place = os.path.join(tempfile.gettempdir(), f"tests-of-values-{os.getpid()}", folder)
    os.makedirs(place, exist_ok=True)
    path = os.path.join(place, "image.png")
    image.save(path)
    opened = Image.open(path)
    opened.load()
    return opened

def informed(image, **info):
    image = image.copy()
    image.info.update(info)
    return image

def indexed(image, red):
    image = image.convert("P")
    image.putpalette([red, 0, 0] * 256)
    return image
"""

LABELLED = [
    other("xarray: values", "GRID", "GRID + 1"),
    other("xarray: dimensions", "GRID", "GRID.rename(x='z')"),
    other("xarray: order of dimensions", "GRID", "GRID.transpose()"),
    other("xarray: coordinates", "GRID", "GRID.assign_coords(x=[10, 20, 31])"),
    other("xarray: type of coordinates", "GRID", "GRID.assign_coords(x=[10.0, 20.0, 30.0])"),
    other("xarray: name", "GRID", "GRID.rename('u')"),
    other("xarray: attributes", "GRID", "GRID.assign_attrs(unit='km')"),
    other(
        "xarray: attributes of a coordinate",
        "GRID",
        "GRID.assign_coords(x=('x', [10, 20, 30], {'unit': 'm'}))",
    ),
    other("xarray: encoding", "GRID", "encoded(GRID, scale_factor=2)"),
    other("xarray: array and dataset", "GRID", "GRID.to_dataset()"),
    other("xarray: variables", "SET", "SET.drop_vars('n')"),
    other("xarray: order of variables", "SET", "SET[['n', 't']]"),
    other("xarray: dtype of a variable", "SET", "SET.astype('float32')"),
    other("xarray: a coordinate that is no index", "SET", "SET.drop_indexes('x')"),
    other("xarray: levels", "GRID.stack(z=('y', 'x'))", "GRID.stack(z=('x', 'y'))"),
    same(
        "xarray: attributes that were asked for",
        "SET.copy()",
        "read(SET.copy(), 'attrs', 'encoding', 'indexes', 'coords', 'dims', 'sizes')",
    ),
    same(
        "xarray: attributes of an array that were asked for",
        "xr.DataArray([1, 2])",
        "read(xr.DataArray([1, 2]), 'attrs', 'encoding', 'indexes', 'values', 'data')",
    ),
    same(
        "xarray: made in another way",
        "SET",
        "xr.Dataset({'t': (('y', 'x'), np.arange(6.0).reshape(2, 3), {'unit': 'm'}), 'n': ('y', "
        "[1, 2])}, {'x': [10, 20, 30]})",
    ),
    same("xarray: a part and that part alone", "GRID.isel(x=slice(1, 3))", "GRID.isel(x=[1, 2])"),
    other("xarray: variables alone", "xr.Variable('x', [1, 2])", "xr.Variable('y', [1, 2])"),
    other("image: one pixel", "Image.fromarray(PIXELS)", "Image.fromarray(PIXELS + 1)"),
    other("image: size", "Image.new('L', (2, 3))", "Image.new('L', (3, 2))"),
    other("image: mode", "Image.new('L', (2, 2))", "Image.new('P', (2, 2))"),
    other(
        "image: palette", "indexed(Image.new('L', (2, 2)), 1)", "indexed(Image.new('L', (2, 2)), 2)"
    ),
    other(
        "image: what is known about it",
        "informed(Image.new('L', (2, 2)), dpi=(72, 72))",
        "informed(Image.new('L', (2, 2)), dpi=(96, 96))",
    ),
    other("image: made and opened", "Image.fromarray(PIXELS)", "saved(Image.fromarray(PIXELS))"),
    same(
        "image: opened and read",
        "saved(Image.fromarray(PIXELS))",
        "read(saved(Image.fromarray(PIXELS)), 'load').copy() and saved(Image.fromarray(PIXELS))",
    ),
    same(
        "image: opened in two folders",
        "stored(Image.fromarray(PIXELS), 'a')",
        "stored(Image.fromarray(PIXELS), 'b')",
    ),
    same(
        "image: made in two ways",
        "Image.new('RGB', (2, 2), 'red')",
        "Image.new('RGB', (4, 4), 'red').crop((0, 0, 2, 2))",
    ),
]

TORCH_SETUP = """
import torch
from torch import nn

def seeded(make):
    torch.manual_seed(0)
    return make()

class Net(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.register_buffer("seen", torch.zeros(1))
    def forward(self, x):
        return torch.relu(self.first(x))

def net(width=2, **attributes):
    made = seeded(lambda: Net(width))
    for name, item in attributes.items():
        setattr(made, name, item)
    return made

def used(module):
    with torch.no_grad():
        module(torch.ones(1, 3))
    return module

def stepped(optimizer, steps):
    for _ in range(steps):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    optimizer.zero_grad()
    return optimizer
"""

TORCH = [
    other("tensors: values", "torch.tensor([1, 2])", "torch.tensor([1, 3])"),
    other("tensors: dtype", "torch.zeros(2)", "torch.zeros(2, dtype=torch.float64)"),
    other(
        "tensors: two kinds of 16 bits",
        "torch.zeros(2, dtype=torch.float16)",
        "torch.zeros(2, dtype=torch.bfloat16)",
    ),
    other("tensors: shape", "torch.zeros(2, 3)", "torch.zeros(3, 2)"),
    other("tensors: gradient asked for", "torch.zeros(2)", "torch.zeros(2, requires_grad=True)"),
    other(
        "tensor and parameter", "torch.zeros(2, requires_grad=True)", "nn.Parameter(torch.zeros(2))"
    ),
    same(
        "tensors: strides",
        "torch.arange(6).reshape(2, 3).T",
        "torch.arange(6).reshape(2, 3).T.contiguous()",
    ),
    same("tensors: views", "torch.arange(6)[2:4]", "torch.tensor([2, 3])"),
    other("tensors: sparse", "torch.eye(2).to_sparse()", "torch.eye(2)"),
    other("tensors: complex", "torch.zeros(2, dtype=torch.complex64)", "torch.zeros(2).double()"),
    same("tensors: conjugated", "torch.tensor([1 + 2j]).conj()", "torch.tensor([1 - 2j])"),
    other("modules: weights", "net()", "seeded(lambda: (torch.rand(1), Net())[1])"),
    other("modules: shape", "net(2)", "net(3)"),
    other("modules: training or not", "net()", "net().eval()"),
    other("modules: attributes", "net()", "net(note='a')"),
    same("modules: used", "net()", "used(net())"),
    other("modules: buffers", "net()", "net(seen=torch.ones(1))"),
    other("state of a module", "net().state_dict()", "net(seen=torch.ones(1)).state_dict()"),
    other(
        "sequences of modules",
        "seeded(lambda: nn.Sequential(nn.Linear(1, 1), nn.ReLU()))",
        "seeded(lambda: nn.Sequential(nn.Linear(1, 1), nn.Tanh()))",
    ),
    other(
        "optimizers: settings",
        "torch.optim.Adam(net().parameters(), 0.1)",
        "torch.optim.Adam(net().parameters(), 0.2)",
        "input",
    ),
    other(
        "optimizers: steps",
        "stepped(torch.optim.Adam(net().parameters()), 1)",
        "stepped(torch.optim.Adam(net().parameters()), 2)",
        "input",
    ),
    other(
        "optimizers: their state",
        "stepped(torch.optim.Adam(net().parameters()), 1).state_dict()",
        "stepped(torch.optim.Adam(net().parameters()), 2).state_dict()",
    ),
    other("dtypes and devices as values", "torch.float32", "torch.float64"),
    other("sizes and tuples", "torch.Size([1, 2])", "(1, 2)"),
]

GROUPS = {
    "sklearn": (SKLEARN_SETUP, SKLEARN),
    "labelled": (LABELLED_SETUP, LABELLED),
    "torch": (TORCH_SETUP, TORCH),
}
if importlib.util.find_spec("torch") is None:
    del GROUPS["torch"]

test_a_value_is_taken_for_what_it_is = each_case_of(GROUPS)
