"""Trace files: JSON lines, plain or compressed by gzip, read up to where they were torn, and written without loss."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from fake_gpu.errors import InvalidValue, WriteFailed
from fake_gpu.trace.format import Checker, Event, Header, Row, Sample, check_claim, decode, encode


def read_bytes(path: Path) -> tuple[bytes, bool]:
    """The text of a file, and whether its compressed form is cut off. Raises InvalidValue where it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix != ".gz":
        return raw, False
    parts: list[bytes] = []
    while raw:
        member = zlib.decompressobj(wbits=31)  # 31: with gzip's header
        try:
            parts.append(member.decompress(raw))
        except zlib.error as error:
            raise InvalidValue(f"{path} is not compressed by gzip, as its name says: {error}") from error
        if not member.eof:
            return b"".join(parts), True
        raw = member.unused_data
    return b"".join(parts), False


def read_rows(path: Path) -> tuple[Header, tuple[Row, ...], bool]:
    """Header, rows, and whether the last line was cut off and left out. Raises InvalidValue with file, line, reason."""
    text, torn = read_bytes(path)
    lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise InvalidValue(f"{path} is empty: a reclaim trace begins with a header line")
    unfinished = None if text.endswith(b"\n") else lines[-1][0]
    checker = Checker()
    header: Header | None = None
    rows: list[Row] = []
    for number, line in lines:
        where = f"{path}, line {number}"
        if header is None:
            check_claim(line, where)
        try:
            row = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == unfinished and header is not None:
                torn = True
                break
            raise InvalidValue(f"{where}: {error}. Is this a reclaim trace?") from error
        if isinstance(row, Header):
            if header is not None:
                raise InvalidValue(f"{where}: a second header; give each trace a file of its own")
            checker.header(row, where)
            header = row
        elif header is None:
            raise InvalidValue(f"{where}: the header has to come first")
        else:
            checker.row(row, where)
            rows.append(row)
    if header is None:  # pragma: no cover  # lines that hold no header were refused above
        raise InvalidValue(f"{path} has no header")
    return header, tuple(rows), torn


def check(header: Header, rows: Iterable[Row], where: str) -> None:
    """The same checks on rows in memory. Raises InvalidValue."""
    checker = Checker()
    checker.header(header, where)
    for number, row in enumerate(rows, 1):
        checker.row(row, f"{where}, row {number}")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises InvalidValue where a file is there and may not be replaced."""
    if not overwrite and path.exists():
        raise InvalidValue(f"{path} is there already: give another name, or allow it to be replaced (--force)")


def write_rows(path: Path, header: Header, rows: Iterable[Row], *, overwrite: bool) -> None:
    """Writes a whole file or, where that fails, none. Raises InvalidValue."""
    refuse_existing(path, overwrite)
    text = b"".join((encode(header), *map(encode, rows)))
    if path.suffix == ".gz":
        text = gzip.compress(text, mtime=0)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o666 & ~_umask())  # mkstemp keeps others out
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise InvalidValue(f"{path} cannot be written: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


class TraceWriter:
    """Appends line by line, so that whatever ends the recording leaves a trace that can be read up to there.

    A plain file has each line at once; one that ends in .gz has it after `flush`.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header, *, overwrite: bool = False) -> None:
        """Raises InvalidValue for a header that cannot be, or a file that is there or cannot be written."""
        self.path = Path(path)
        self._checker = Checker()
        self._checker.header(header, str(self.path))
        refuse_existing(self.path, overwrite)
        try:
            raw: BinaryIO = open(self.path, "wb", buffering=0)  # noqa: SIM115  # closed by close()
        except OSError as error:
            raise InvalidValue(f"{self.path} cannot be written: {error.strerror}") from error
        self._raw = raw
        self._gzip = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) if self.path.suffix == ".gz" else None
        self.rows = 0
        """How many were written."""
        try:
            self._write(header)
        except BaseException:
            raw.close()
            raise

    def _write(self, row: Header | Row) -> None:
        try:
            (self._gzip or self._raw).write(encode(row))
        except OSError as error:
            raise WriteFailed(
                f"{self.path} cannot be written any further: {error.strerror}. What was written can be read"
            ) from error

    def write(self, row: Sample | Event) -> None:
        """Appends a row. Raises InvalidValue for one that cannot follow what was written, and WriteFailed."""
        self._checker.row(row, f"{self.path}, row {self.rows + 1}")
        self._write(row)
        self.rows += 1

    def flush(self) -> None:
        """Has a compressed file readable up to here. Costs some bytes: once a second is enough."""
        if self._gzip is not None:
            self._gzip.flush()

    def close(self) -> None:
        """Safe to call twice."""
        if self._gzip is not None:
            self._gzip.close()
        self._raw.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
