"""Attribute columns: values as NumPy arrays, filtered by `where` conditions in milliseconds."""

import numpy as np

from keras_metric._validation import shown
from keras_metric.search.index_inputs import MISSING, AnyOf, check_kind
from keras_metric.search.stores.growing_arrays import GrowingArray, ValueCodes, compacted


class _Column:
    """Arrays with one entry for each row: `arrays` are their names and types."""

    arrays = {}

    def __init__(self):
        for array, dtype in self.arrays.items():
            setattr(self, array, GrowingArray(dtype))


class StringColumn(_Column):
    """Strings as int32 codes; -1 where an item lacks the attribute."""

    arrays = {"codes": "int32"}

    def __init__(self):
        super().__init__()
        self.names = ValueCodes()

    def encode(self, values):
        if MISSING not in values:
            return {"codes": self.names.encode(values)}
        present = np.array([value is not MISSING for value in values])
        codes = np.full(len(values), -1, "int32")
        codes[present] = self.names.encode([v for v in values if v is not MISSING])
        return {"codes": codes}

    def read(self, rows):
        names = self.names.values
        return [MISSING if code < 0 else names[code] for code in self.codes.rows[rows].tolist()]

    def mask(self, clause):
        # The last entry is that of the code -1, missing.
        chosen = np.zeros(len(self.names.values) + 1, bool)
        if isinstance(clause, AnyOf):
            codes = [self.names.code_of.get(value, -2) for value in clause.values]
            if len(codes) == 1:
                return self.codes.rows == codes[0]
            chosen[[code for code in codes if code >= 0]] = True
        else:
            low, high = clause.low or "", clause.high
            for code, name in enumerate(self.names.values):
                chosen[code] = name is not None and low <= name and (high is None or name <= high)
        return chosen[self.codes.rows]


class NumberColumn(_Column):
    """Numbers as float64, which represents integers up to 2**53 exactly; NaN where missing.

    `whole` marks integers, so that 20 is returned as 20, and 20.0 as 20.0.
    """

    arrays = {"numbers": "float64", "whole": "bool"}

    def encode(self, values):
        numbers = np.array([np.nan if v is MISSING else v for v in values], "float64")
        return {"numbers": numbers, "whole": np.array([type(v) is int for v in values], bool)}

    def read(self, rows):
        pairs = zip(self.numbers.rows[rows].tolist(), self.whole.rows[rows].tolist(), strict=True)
        return [MISSING if v != v else int(v) if whole else v for v, whole in pairs]

    def mask(self, clause):
        numbers = self.numbers.rows
        if isinstance(clause, AnyOf):
            if len(clause.values) == 1:
                return numbers == clause.values[0]
            return np.isin(numbers, np.array(clause.values, "float64"))
        # Comparisons with NaN are False.
        low = -np.inf if clause.low is None else clause.low
        return (numbers >= low) & (numbers <= (np.inf if clause.high is None else clause.high))


class FlagColumn(_Column):
    """True and False as 1 and 0; -1 where an item lacks the attribute."""

    arrays = {"flags": "int8"}

    def encode(self, values):
        return {"flags": np.array([-1 if v is MISSING else v for v in values], "int8")}

    def read(self, rows):
        return [(False, True, MISSING)[flag] for flag in self.flags.rows[rows].tolist()]

    def mask(self, clause):
        return np.isin(self.flags.rows, np.array(clause.values, "int8"))


KINDS = {"string": StringColumn, "number": NumberColumn, "flag": FlagColumn}


class AttributeColumns:
    """The attributes of all rows, one column for each name."""

    def __init__(self):
        self._columns = {}
        self._size = 0

    @property
    def kinds(self):
        """`{name: kind}` of every attribute that any item ever had."""
        names = {cls: kind for kind, cls in KINDS.items()}
        return {name: names[type(column)] for name, column in self._columns.items()}

    def check(self, table):
        """Raise if the kinds of a table differ from those of the columns; change nothing."""
        kinds = self.kinds
        for name, (kind, _) in table.items():
            check_kind(name, kind, kinds.get(name, kind))

    def append(self, table, count):
        """Append `count` rows."""
        self._add_columns(table)
        for name, column in self._columns.items():
            self._fill(column, table[name][1] if name in table else [MISSING] * count)
        self._size += count

    def replace(self, rows, table):
        """Overwrite all the attributes of some rows."""
        self._add_columns(table)
        for name, column in self._columns.items():
            values = table[name][1] if name in table else [MISSING] * len(rows)
            encoded = column.encode(values)
            if isinstance(column, StringColumn):
                column.names.release(column.codes.rows[rows])
            for array in column.arrays:
                getattr(column, array).rows[rows] = encoded[array]

    def release(self, rows):
        """Release the strings of some rows, before `fill_hole` removes the rows."""
        for column in self._string_columns():
            column.names.release(column.codes.rows[rows])

    def fill_hole(self, row):
        """Remove a row: the last row moves to its position."""
        for column in self._columns.values():
            for array in column.arrays:
                getattr(column, array).fill_hole(row)
        self._size -= 1

    def tidy(self):
        """Compact the string tables in which most codes are unused."""
        for column in self._string_columns():
            column.names.compact(column.codes.rows)

    def read(self, rows):
        """The attributes of some rows, as a list of dicts."""
        result = [{} for _ in range(len(rows))]
        for name, column in self._columns.items():
            for attributes, value in zip(result, column.read(rows), strict=True):
                if value is not MISSING:
                    attributes[name] = value
        return result

    def mask(self, clauses):
        """A boolean for each row, True where all conditions hold; None without conditions."""
        mask = None
        for clause in clauses:
            column = self._columns.get(clause.name)
            if column is None and self._size:
                raise ValueError(unknown_attribute(clause.name, self._columns))
            if column is not None and clause.kind is not None:
                check_kind(clause.name, clause.kind, self.kinds[clause.name])
            found = np.zeros(self._size, bool) if column is None else column.mask(clause)
            mask = found if mask is None else mask & found
        return mask

    def to_arrays(self):
        """Return a JSON-ready description and arrays by name, for `from_arrays`."""
        description, arrays = [], {}
        for number, (name, column) in enumerate(self._columns.items()):
            kind, values = self.kinds[name], []
            for array in column.arrays:
                rows = getattr(column, array).rows
                if kind == "string":
                    rows, values = compacted(rows, column.names.values)
                arrays[f"column-{number}-{array}"] = rows
            description.append({"name": name, "kind": kind, "values": values})
        return description, arrays

    @classmethod
    def from_arrays(cls, description, arrays, size):
        result = cls()
        result._size = size
        for number, entry in enumerate(description):
            column = result._columns[entry["name"]] = KINDS[entry["kind"]]()
            for array in column.arrays:
                setattr(column, array, GrowingArray.of(arrays[f"column-{number}-{array}"]))
            if isinstance(column, StringColumn):
                column.names = ValueCodes(entry["values"], column.codes.rows)
        return result

    def _string_columns(self):
        return [column for column in self._columns.values() if isinstance(column, StringColumn)]

    def _add_columns(self, table):
        for name, (kind, _) in table.items():
            if name not in self._columns:
                self._columns[name] = KINDS[kind]()
                self._fill(self._columns[name], [MISSING] * self._size)

    def _fill(self, column, values):
        for array, encoded in column.encode(values).items():
            getattr(column, array).grow(len(values))[:] = encoded


def unknown_attribute(name, names):
    """The message for a name in `where` that no item has."""
    return (
        f"`where` names an attribute that no item of this index has. Received: {shown(name)}; "
        f"the attributes are {shown(sorted(names))}"
    )
