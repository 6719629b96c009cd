"""Tables as Parquet files; pictures stored inside them are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tagmask.data.table.columns import Columns
from tagmask.errors import DataError


def read_parquet(path: Path) -> Columns:
    """Columns of a Parquet file.

    Raises:
        DataError: not one, or broken.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def small(kind: Any) -> bool:
        return not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind))

    try:
        schema = pq.read_schema(path)
        names = [field.name for field in schema if small(field.type)]
        values = pq.read_table(path, columns=names).to_pydict()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        msg = f"{path}: cannot be read as Parquet ({reason}). Write it again, or use CSV."
        raise DataError(msg) from error
    n_rows = len(next(iter(values.values()), []))
    return Columns(path, values, list(range(1, n_rows + 1)))
