from typing_extensions import Buffer

def encode_frame(
    opcode: int, payload: Buffer, *, fin: bool = True, rsv1: bool = False, masking_key: bytes | None = None
) -> bytes: ...
def mask(data: Buffer, masking_key: bytes, offset: int = 0) -> bytes: ...

__pyx_capi__: dict[str, object]  # Cython's: what other modules cimport
