"CDBs to test with."

from __future__ import annotations

import io

from cdblib import Writer


def cdb(*keys: bytes | str) -> bytes:
    "The bytes of a CDB with these keys, and nothing behind them."
    file = io.BytesIO()
    with Writer(file) as writer:
        for key in keys:
            writer.put(key.encode() if isinstance(key, str) else key, b"")
    return file.getvalue()
