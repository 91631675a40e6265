"""Arrays and tables that are easily taken for one another."""

from __future__ import annotations

from tests.reuse.values import each_case_of, other, same

ARRAYS_SETUP = """
import numpy as np
import scipy.sparse as sp
from numpy._core import _rational_tests

ARRAY = np.arange(12).reshape(3, 4)
PAIR = [("a", "i1"), ("b", "f8")]
ALIGNED = np.dtype(PAIR, align=True)

class Tagged(np.ndarray):
    pass

def view(array, kind):
    return array.view(kind)

def frozen(array):
    array.flags.writeable = False
    return array

def mapped(array):
    import os, tempfile
    with tempfile.TemporaryDirectory() as folder:
        np.save(os.path.join(folder, "a.npy"), array)
        return np.load(os.path.join(folder, "a.npy"), mmap_mode="r")

def hard(array):
    return array.harden_mask()

def dirty(dtype):
    array = np.frombuffer(b"\\x01" * 64, dtype)[:2].copy()
    for name in array.dtype.names:
        array[name] = 0
    return array

def long(values, fill):
    array = np.array(values, np.longdouble)
    if np.finfo(array.dtype).nmant == 63:
        array.view("u1").reshape(len(values), -1)[:, 10:] = fill
    return array

def holding(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array

def in_itself():
    array = np.empty(2, object)
    array[0], array[1] = array, 1
    return array

def read(array, name):
    getattr(array, name)
    return array

def advanced(generator, count):
    generator.random(count)
    return generator
"""

ARRAYS = [
    other("dtype, same bytes", "np.zeros(3, 'i8')", "np.zeros(3, 'f8')"),
    other("signed and unsigned", "np.arange(3, dtype='i4')", "np.arange(3, dtype='u4')"),
    other("shape", "np.zeros((2, 3))", "np.zeros((3, 2))"),
    other("one row and a vector", "np.zeros((1, 3))", "np.zeros(3)"),
    other("0-d array and scalar", "np.array(1.5)", "np.float64(1.5)"),
    other("empty arrays", "np.zeros((0, 2))", "np.zeros((0, 3))"),
    other("big-endian", "np.arange(3, dtype='>i4')", "np.arange(3, dtype='<i4')"),
    other(
        "big-endian, strided", "np.arange(6, dtype='>f8')[::2]", "np.arange(6, dtype='<f8')[::2]"
    ),
    other("big-endian in a list", "[np.arange(3, dtype='>i4')]", "[np.arange(3, dtype='<i4')]"),
    same("Fortran order", "ARRAY", "np.asfortranarray(ARRAY)"),
    same("Fortran order in a list", "[ARRAY]", "[np.asfortranarray(ARRAY)]"),
    same("negative strides", "ARRAY[::-1]", "ARRAY[::-1].copy()"),
    same("a view and a copy", "ARRAY[:, 1:3]", "ARRAY[:, 1:3].copy()"),
    same("read-only", "ARRAY.copy()", "frozen(ARRAY.copy())"),
    same("memory-mapped", "ARRAY", "np.asarray(mapped(ARRAY))"),
    same("a broadcast array", "np.broadcast_to(np.arange(3), (2, 3))", "np.array([[0, 1, 2]] * 2)"),
    other(
        "NaN payloads",
        "np.array([0x7FF8000000000001], 'u8').view('f8')",
        "np.array([0x7FF8000000000002], 'u8').view('f8')",
    ),
    other("signed zeros in an array", "np.array([0.0])", "np.array([-0.0])"),
    other("structured: names", "np.zeros(2, PAIR)", "np.zeros(2, [('a', 'i1'), ('c', 'f8')])"),
    other("structured: alignment", "np.zeros(2, PAIR)", "np.zeros(2, ALIGNED)"),
    same("structured: what lies between the fields", "np.zeros(2, ALIGNED)", "dirty(ALIGNED)"),
    other("structured and record", "np.zeros(2, PAIR)", "np.zeros(2, np.dtype((np.record, PAIR)))"),
    other("recarray", "np.zeros(2, PAIR)", "np.zeros(2, PAIR).view(np.recarray)"),
    other("structured scalar", "np.zeros(2, PAIR)[0]", "np.ones(2, PAIR)[0]"),
    other("masks", "np.ma.array([1, 2], mask=[0, 1])", "np.ma.array([1, 2], mask=[1, 0])"),
    other(
        "what is under a mask",
        "np.ma.array([1, 2], mask=[0, 1])",
        "np.ma.array([1, 3], mask=[0, 1])",
    ),
    other(
        "value that fills", "np.ma.array([1, 2], fill_value=7)", "np.ma.array([1, 2], fill_value=8)"
    ),
    other(
        "a mask that cannot be lifted",
        "np.ma.array([1, 2], mask=[0, 1])",
        "hard(np.ma.array([1, 2], mask=[0, 1]))",
    ),
    same("no mask and an empty one", "np.ma.array([1, 2])", "np.ma.array([1, 2], mask=[0, 0])"),
    same(
        "a mask whose filling was asked for",
        "np.ma.array([1, 2])",
        "read(np.ma.array([1, 2]), 'fill_value')",
    ),
    other("objects and what they look like", "np.array([1, 2], object)", "np.array([1, 2])"),
    other("types in an object array", "np.array([1, True], object)", "np.array([1, 1], object)"),
    other("lists in an object array", "holding([1], [2])", "holding([1], [2.0])"),
    other("an object array in itself", "in_itself()", "holding(None, 1)"),
    other("width of strings", "np.array(['a'])", "np.array(['a'], 'U5')"),
    other("strings and bytes", "np.array(['a'])", "np.array([b'a'])"),
    other(
        "strings of variable width",
        "np.array(['a', 'b'], np.dtypes.StringDType())",
        "np.array(['a', 'c'], np.dtypes.StringDType())",
    ),
    other(
        "what stands for a missing string",
        "np.array(['a', None], np.dtypes.StringDType(na_object=None))",
        "np.array(['a', float('nan')], np.dtypes.StringDType(na_object=float('nan')))",
    ),
    other("units of datetime64", "np.array([1], 'M8[D]')", "np.array([24], 'M8[h]')"),
    other(
        "NaT and the smallest number",
        "np.array(['NaT'], 'M8[s]')",
        "np.array(['NaT'], 'M8[s]').view('i8')",
    ),
    other("half precision", "np.array([1], 'f2')", "np.array([1], 'u2')"),
    other("extended precision", "np.array([1], 'g')", "np.array([1]) + np.longdouble(1e-18)"),
    same("bytes that extended precision leaves out", "long([1, 2], 0)", "long([1, 2], 255)"),
    other(
        "metadata of a dtype",
        "np.zeros(1, np.dtype('f8', metadata={'unit': 'm'}))",
        "np.zeros(1, np.dtype('f8', metadata={'unit': 'km'}))",
    ),
    other(
        "a dtype that another library made",
        "np.array([_rational_tests.rational(1, 2)])",
        "np.array([_rational_tests.rational(1, 3)])",
        "input",
    ),
    other("matrix and array", "np.matrix(ARRAY)", "ARRAY"),
    other("state of a Generator", "np.random.default_rng(1)", "np.random.default_rng(2)"),
    other(
        "what a Generator has drawn",
        "np.random.default_rng(1)",
        "advanced(np.random.default_rng(1), 1)",
    ),
    same(
        "a Generator that was made again",
        "advanced(np.random.default_rng(1), 2)",
        "advanced(advanced(np.random.default_rng(1), 1), 1)",
    ),
    other(
        "kinds of Generator",
        "np.random.Generator(np.random.PCG64(1))",
        "np.random.Generator(np.random.Philox(1))",
    ),
    other("RandomState", "np.random.RandomState(1)", "np.random.RandomState(2)"),
    other("dtypes as values", "np.dtype('i4')", "np.dtype('>i4')"),
    other("sparse formats", "sp.csr_array(ARRAY)", "sp.csc_array(ARRAY)"),
    other("sparse matrix and array", "sp.csr_matrix(ARRAY)", "sp.csr_array(ARRAY)"),
    other(
        "zeros that are stored",
        "sp.csr_array(([1, 0], ([0, 1], [0, 1])), (2, 2))",
        "sp.csr_array(([1], ([0], [0])), (2, 2))",
    ),
    same(
        "a sparse array whose order was asked for",
        "sp.csr_array(ARRAY)",
        "read(sp.csr_array(ARRAY), 'has_sorted_indices')",
    ),
    other(
        "shape of a sparse array",
        "sp.coo_array(([1], ([0], [0])), (2, 2))",
        "sp.coo_array(([1], ([0], [0])), (2, 3))",
    ),
    other("sparse by keys", "sp.dok_array(ARRAY)", "sp.dok_array(2 * ARRAY)"),
    other(
        "sparse by keys, one dimension",
        "sp.dok_array(np.array([0, 1]))",
        "sp.dok_array(np.array([1, 0]))",
    ),
    other("sparse by rows", "sp.lil_array(ARRAY)", "sp.lil_array(2 * ARRAY)"),
    other("sparse by diagonals", "sp.dia_array(ARRAY)", "sp.dia_array(2 * ARRAY)"),
    other("sparse by blocks", "sp.bsr_array(ARRAY)", "sp.bsr_array(2 * ARRAY)"),
    other(
        "sparse, one dimension", "sp.coo_array(np.array([0, 1]))", "sp.coo_array(np.array([1, 0]))"
    ),
]

PANDAS_SETUP = """
import datetime
import numpy as np
import pandas as pd
from zoneinfo import ZoneInfo

DAYS = pd.date_range("2024-10-27", periods=3)
FRAME = pd.DataFrame({"a": [1, 2, 3], "b": [1.5, None, 2.5], "c": ["x", None, "y"]})

class Annotated(pd.DataFrame):
    _metadata = ["unit"]

    @property
    def _constructor(self):
        return Annotated

def zone(hours, *name):
    return datetime.timezone(datetime.timedelta(hours=hours), *name)

def frame(values, **options):
    return pd.DataFrame({"a": values}, **options)

def noted(frame, **attrs):
    frame.attrs.update(attrs)
    return frame

def annotated(frame, unit):
    frame = Annotated(frame)
    frame.unit = unit
    return frame

def multi(first, second, codes, **names):
    return pd.MultiIndex(levels=[first, second], codes=codes, **names)

def read(value, name):
    getattr(value, name)
    return value

def twice(fold):
    at = dict(year=2024, month=10, day=27, hour=2, minute=30)
    return pd.Timestamp(**at, tz="Europe/Paris", fold=fold)

def filled(values, dtype, at, beneath):
    array = pd.array(values, dtype=dtype)
    array[at] = beneath
    array[at] = None
    return array
"""

PANDAS = [
    other("one cell", "FRAME", "FRAME.replace({'a': {2: 9}})"),
    other("dtype alone", "FRAME", "FRAME.astype({'a': 'int32'})"),
    other("name of a column", "FRAME", "FRAME.rename(columns={'a': 'A'})"),
    other("order of columns", "FRAME", "FRAME[['b', 'a', 'c']]"),
    other("order of rows", "FRAME", "FRAME.iloc[::-1]"),
    same("rebuilt by halves", "FRAME", "pd.concat([FRAME.iloc[:1], FRAME.iloc[1:]])"),
    same(
        "columns as blocks or alone",
        "FRAME[['a']].assign(d=1, e=2)",
        "pd.DataFrame({'a': [1, 2, 3], 'd': 1, 'e': 2})",
    ),
    same("a table that was looked at", "FRAME.copy()", "read(FRAME.copy(), 'values')"),
    other("RangeIndex and Index", "frame([1, 2])", "frame([1, 2], index=pd.Index([0, 1]))"),
    other(
        "end of a RangeIndex",
        "frame([1, 2, 3], index=pd.RangeIndex(0, 5, 2))",
        "frame([1, 2, 3], index=pd.RangeIndex(0, 6, 2))",
    ),
    other("name of the index", "FRAME", "FRAME.rename_axis('i')"),
    other("name of the labels", "FRAME", "FRAME.rename_axis(columns='c')"),
    other(
        "frequency of the index",
        "frame([1, 2, 3], index=DAYS)",
        "frame([1, 2, 3], index=DAYS._with_freq(None))",
    ),
    other(
        "holidays of a frequency",
        "pd.DatetimeIndex([], freq=pd.offsets.CustomBusinessDay(holidays=['2024-12-24']))",
        "pd.DatetimeIndex([], freq=pd.offsets.CustomBusinessDay(holidays=['2024-12-25']))",
    ),
    other(
        "zone of a column",
        "frame(DAYS.tz_localize('UTC'))",
        "frame(DAYS.tz_localize('Europe/Paris'))",
    ),
    other(
        "UTC as offset and as zone",
        "frame(DAYS.tz_localize(datetime.UTC))",
        "frame(DAYS.tz_localize(ZoneInfo('UTC')))",
    ),
    other(
        "two offsets of one name",
        "frame(DAYS.tz_localize('UTC').tz_convert(zone(1, 'X')))",
        "frame(DAYS.tz_localize('UTC').tz_convert(zone(2, 'X')))",
    ),
    other("unit of a column", "frame(DAYS.as_unit('s'))", "frame(DAYS.as_unit('us'))"),
    other(
        "categories that are not used",
        "frame(pd.Categorical(['a'], ['a', 'b']))",
        "frame(pd.Categorical(['a'], ['a', 'c']))",
    ),
    other(
        "order of categories",
        "frame(pd.Categorical(['a'], ['a', 'b']))",
        "frame(pd.Categorical(['a'], ['b', 'a']))",
    ),
    other(
        "ordered categories",
        "frame(pd.Categorical(['a', 'b']))",
        "frame(pd.Categorical(['a', 'b'], ordered=True))",
    ),
    other(
        "type of categories", "frame(pd.Categorical([1, 2]))", "frame(pd.Categorical([1.0, 2.0]))"
    ),
    other("nullable and plain", "frame([1, 2])", "frame(pd.array([1, 2], 'Int64'))"),
    other(
        "nullable and Arrow",
        "frame(pd.array([1, None], 'Int64'))",
        "frame(pd.array([1, None], 'int64[pyarrow]'))",
    ),
    other(
        "missing and NaN",
        "frame(pd.array([1.0, None], 'Float64'))",
        "frame(np.array([1.0, np.nan]))",
    ),
    same(
        "what is under a missing value",
        "frame(filled([1, 2], 'Int64', 1, 5))",
        "frame(filled([1, 2], 'Int64', 1, 6))",
    ),
    other(
        "storage of strings",
        "frame(pd.array(['a'], 'string[python]'))",
        "frame(pd.array(['a'], 'string[pyarrow]'))",
    ),
    other("strings and objects", "frame(['a', 'b'])", "frame(pd.Series(['a', 'b'], dtype=object))"),
    other(
        "missing strings: NaN and NA",
        "frame(pd.array(['a', None], 'str'))",
        "frame(pd.array(['a', None], 'string'))",
    ),
    other(
        "None and NaN in an object column",
        "frame(pd.Series(['a', None], dtype=object))",
        "frame(pd.Series(['a', np.nan], dtype=object))",
    ),
    other(
        "lists in an object column", "frame(pd.Series([[1], [2]]))", "frame(pd.Series([[1], (2,)]))"
    ),
    other(
        "Arrow types",
        "frame(pd.array([1], pd.ArrowDtype(__import__('pyarrow').int8())))",
        "frame(pd.array([1], pd.ArrowDtype(__import__('pyarrow').int16())))",
    ),
    same(
        "an Arrow column cut from a longer one",
        "frame(pd.array(['a', 'b', 'c'], 'string[pyarrow]')[1:])",
        "frame(pd.array(['b', 'c'], 'string[pyarrow]'))",
    ),
    other(
        "names of levels",
        "frame([1], index=pd.MultiIndex.from_tuples([(1, 2)], names=['a', 'b']))",
        "frame([1], index=pd.MultiIndex.from_tuples([(1, 2)], names=['b', 'a']))",
    ),
    other(
        "levels of columns",
        "pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([['a'], [1, 2]]))",
        "pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([['a'], [1, 3]]))",
    ),
    other(
        "order of a level: it is the order of unstack()",
        "frame([1, 2], index=multi(['a', 'b'], [0], [[0, 1], [0, 0]]))",
        "frame([1, 2], index=multi(['b', 'a'], [0], [[1, 0], [0, 0]]))",
    ),
    same(
        "a level with values that are not used",
        "frame([1], index=multi(['a', 'b'], [0], [[0], [0]]))",
        "frame([1], index=multi(['a'], [0], [[0], [0]]))",
    ),
    same(
        "a MultiIndex cut from a longer one",
        "pd.MultiIndex.from_product([range(4), ['x', 'y']])[2:6]",
        "pd.MultiIndex.from_product([[1, 2], ['x', 'y']])",
    ),
    other(
        "missing in a level",
        "pd.MultiIndex.from_arrays([['a', None], [1, 2]])",
        "pd.MultiIndex.from_arrays([['a', 'None'], [1, 2]])",
    ),
    other("series and frame", "FRAME['a']", "FRAME[['a']]"),
    other("name of a series", "FRAME['a']", "FRAME['a'].rename('b')"),
    other(
        "column labels of two types",
        "pd.DataFrame([[1]], columns=[1])",
        "pd.DataFrame([[1]], columns=['1'])",
    ),
    other(
        "two columns of one name",
        "pd.DataFrame([[1, 2]], columns=['a', 'a'])",
        "pd.DataFrame([[2, 1]], columns=['a', 'a'])",
    ),
    other("attrs", "noted(FRAME.copy(), unit='m')", "noted(FRAME.copy(), unit='km')"),
    other(
        "attrs that are no JSON",
        "noted(FRAME.copy(), shape=(1, 2))",
        "noted(FRAME.copy(), shape=[1, 2])",
    ),
    same("attrs that were asked for", "FRAME.copy()", "read(FRAME.copy(), 'attrs')"),
    other("flags", "FRAME.copy()", "FRAME.set_flags(allows_duplicate_labels=False)"),
    other("metadata of a subclass", "annotated(FRAME, 'm')", "annotated(FRAME, 'km')"),
    other(
        "intervals: closed",
        "frame(pd.interval_range(0, 2))",
        "frame(pd.interval_range(0, 2, closed='left'))",
    ),
    other(
        "periods",
        "frame(pd.period_range('2024', periods=2, freq='M'))",
        "frame(pd.period_range('2024-01-01', periods=2, freq='D'))",
    ),
    other(
        "sparse columns",
        "frame(pd.arrays.SparseArray([0, 1]))",
        "frame(pd.arrays.SparseArray([0, 1], fill_value=1))",
    ),
    other(
        "timestamps: unit",
        "pd.Timestamp('2024-01-01').as_unit('s')",
        "pd.Timestamp('2024-01-01').as_unit('ms')",
    ),
    other("timestamps: fold", "twice(0)", "twice(1)"),
    other("missing values", "[pd.NaT]", "[pd.NA]"),
    other("intervals as values", "pd.Interval(0, 1)", "pd.Interval(0, 1, 'both')"),
    other("offsets as values", "pd.offsets.MonthEnd(1)", "pd.offsets.MonthEnd(2)"),
    other("an empty table's columns", "pd.DataFrame(columns=['a'])", "pd.DataFrame(columns=['b'])"),
    other("an empty table's rows", "pd.DataFrame(index=[1])", "pd.DataFrame(index=[2])"),
    other("dtype of an empty column", "frame(np.array([], 'i8'))", "frame(np.array([], 'f8'))"),
]

ARROW_SETUP = """
import datetime, decimal
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

WORDS = pa.array(["a", "b", None, "c"])
TABLE = pa.table({"n": [1, None, 3, 4], "s": WORDS, "l": [[1], None, [], [2, 3]]})

class Money(pa.ExtensionType):
    def __init__(self, unit):
        self.unit = unit
        super().__init__(pa.int64(), "tests.money")
    def __arrow_ext_serialize__(self):
        return self.unit.encode()
    @classmethod
    def __arrow_ext_deserialize__(cls, storage, data):
        return cls(data.decode())

pa.register_extension_type(Money("EUR"))

def money(unit, *values):
    return pa.ExtensionArray.from_storage(Money(unit), pa.array(values, pa.int64()))

def struct(metadata):
    return pa.struct([pa.field("a", pa.int64(), metadata=metadata)])

def union(kinds):
    offsets = pa.array([0], pa.int32())
    children = [pa.array([1], pa.int64()), pa.array([1], pa.int32())]
    return pa.UnionArray.from_dense(pa.array([kinds], pa.int8()), offsets, children)

def cast(values, kind, before=()):
    pl.Series(list(before), dtype=pl.Categorical)
    return pl.Series("c", values, dtype=kind)
"""

ARROW = [
    other("missing and zero", "pa.array([1, None])", "pa.array([1, 0])"),
    other("width", "pa.array([1], pa.int32())", "pa.array([1], pa.int64())"),
    other("large strings", "WORDS", "WORDS.cast(pa.large_string())"),
    same("a slice with an offset", "WORDS.slice(1, 2)", "pa.array(['b', None])"),
    same(
        "a slice of bits",
        "pa.array([True, False, None] * 5).slice(3, 3)",
        "pa.array([True, False, None])",
    ),
    same("a slice of lists", "TABLE.slice(2, 2)", "TABLE.slice(1, 3).slice(1, 2)"),
    same("chunks", "pa.chunked_array([[1, 2], [3]])", "pa.chunked_array([[1], [2, 3]])"),
    other("array and chunked array", "pa.array([1])", "pa.chunked_array([[1]])"),
    other("table and batch", "TABLE", "TABLE.to_batches()[0]"),
    same("a table in two chunks", "TABLE", "pa.concat_tables([TABLE.slice(0, 3), TABLE.slice(3)])"),
    other("names", "TABLE", "TABLE.rename_columns(['n', 's', 'k'])"),
    other(
        "metadata",
        "TABLE.replace_schema_metadata({'a': '1'})",
        "TABLE.replace_schema_metadata({'a': '2'})",
    ),
    other(
        "metadata of a field",
        "pa.schema([pa.field('a', pa.int8(), metadata={'u': 'm'})])",
        "pa.schema([pa.field('a', pa.int8(), metadata={'u': 'km'})])",
    ),
    other(
        "metadata of a field in a struct",
        "pa.table({'a': pa.array([{'a': 1}], struct({'u': 'm'}))})",
        "pa.table({'a': pa.array([{'a': 1}], struct({'u': 'km'}))})",
    ),
    other(
        "dictionaries", "pa.array(['a', 'b', 'a']).dictionary_encode()", "pa.array(['a', 'b', 'a'])"
    ),
    other(
        "order of a dictionary",
        "pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(['a', 'b']))",
        "pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(['b', 'a']))",
    ),
    other(
        "ordered dictionary",
        "pa.DictionaryArray.from_arrays([0], ['a'])",
        "pa.DictionaryArray.from_arrays([0], ['a'], ordered=True)",
    ),
    other("nested: where lists end", "pa.array([[1, 2], [3]])", "pa.array([[1], [2, 3]])"),
    other("nested: missing and empty", "pa.array([[1], None])", "pa.array([[1], []])"),
    other(
        "structs: missing",
        "pa.array([{'a': None}])",
        "pa.array([None], pa.struct({'a': pa.null()}))",
    ),
    other(
        "maps",
        "pa.array([[(1, 'a')]], pa.map_(pa.int8(), pa.string()))",
        "pa.array([[(1, 'b')]], pa.map_(pa.int8(), pa.string()))",
    ),
    other("which type of a union it is", "union(0)", "union(1)"),
    other("parameters of an extension type", "money('EUR', 1)", "money('USD', 1)"),
    other("values of an extension type", "money('EUR', 1)", "money('EUR', 2)"),
    other(
        "decimals: scale",
        "pa.array([decimal.Decimal('1.0')])",
        "pa.array([decimal.Decimal('1.00')])",
    ),
    other(
        "timestamps: zone",
        "pa.array([0], pa.timestamp('s', 'UTC'))",
        "pa.array([0], pa.timestamp('s', 'Europe/Paris'))",
    ),
    other(
        "NaN payloads in Arrow",
        "pa.array(np.array([0x7FF8000000000001], 'u8').view('f8'))",
        "pa.array(np.array([0x7FF8000000000002], 'u8').view('f8'))",
    ),
    other("scalars", "pa.scalar(1, pa.int8())", "pa.scalar(1, pa.int16())"),
    other(
        "nanoseconds of a scalar",
        "pa.scalar(1, pa.timestamp('ns'))",
        "pa.scalar(2, pa.timestamp('ns'))",
    ),
    other("run ends and plain", "pc.run_end_encode(pa.array([1, 1, 2]))", "pa.array([1, 1, 2])"),
    other(
        "fixed sizes",
        "pa.array([[1, 2]], pa.list_(pa.int8(), 2))",
        "pa.array([[1, 2]], pa.list_(pa.int8()))",
    ),
    other(
        "polars: width",
        "pl.DataFrame({'a': [1]})",
        "pl.DataFrame({'a': [1]}, schema={'a': pl.Int8})",
    ),
    other(
        "polars: missing and NaN",
        "pl.DataFrame({'a': [1.0, None]})",
        "pl.DataFrame({'a': [1.0, float('nan')]})",
    ),
    other(
        "polars: order of columns",
        "pl.DataFrame({'a': [1], 'b': [1]})",
        "pl.DataFrame({'b': [1], 'a': [1]})",
    ),
    same(
        "polars: chunks",
        "pl.DataFrame({'a': [1, 2]})",
        "pl.concat([pl.DataFrame({'a': [1]}), pl.DataFrame({'a': [2]})], rechunk=False)",
    ),
    same(
        "polars: a slice",
        "pl.DataFrame({'a': ['x', None, 'y']})[1:]",
        "pl.DataFrame({'a': [None, 'y']})",
    ),
    same(
        "polars: categories that others made before",
        "cast(['a', 'b'], pl.Categorical)",
        "cast(['a', 'b'], pl.Categorical, ['z', 'b', 'a'])",
    ),
    other(
        "polars: Enum and Categorical",
        "cast(['a'], pl.Enum(['a', 'b']))",
        "cast(['a'], pl.Categorical)",
    ),
    other(
        "polars: members of an Enum",
        "cast(['a'], pl.Enum(['a', 'b']))",
        "cast(['a'], pl.Enum(['a', 'c']))",
    ),
    other("polars: zones", "cast([0], pl.Datetime('us', 'UTC'))", "cast([0], pl.Datetime('us'))"),
    other("polars: 128 bits", "cast([2**100], pl.Int128)", "cast([2**100 + 1], pl.Int128)"),
    other(
        "polars: arrays and lists",
        "cast([[1, 2]], pl.Array(pl.Int64, 2))",
        "cast([[1, 2]], pl.List(pl.Int64))",
    ),
    other("polars: structs", "pl.DataFrame({'a': [{'x': 1}]})", "pl.DataFrame({'a': [{'y': 1}]})"),
    other("polars: objects", "cast([[1], {1}], pl.Object)", "cast([[1], {2}], pl.Object)", "input"),
    other("polars: series and frame", "cast([1], pl.Int64)", "cast([1], pl.Int64).to_frame()"),
    other("polars: a table without columns", "pl.DataFrame()", "pl.DataFrame({'a': []})"),
]

GROUPS = {
    "arrays": (ARRAYS_SETUP, ARRAYS),
    "pandas": (PANDAS_SETUP, PANDAS),
    "arrow": (ARROW_SETUP, ARROW),
}

test_a_value_is_taken_for_what_it_is = each_case_of(GROUPS)
