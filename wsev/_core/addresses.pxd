"""The two ends of a socket, small: 20 bytes each, where Python's tuple takes 160."""

from libc.stdint cimport uint8_t, uint16_t

from wsev._core cimport system


cdef struct Address:
    uint16_t port
    uint8_t family                      # 4, 6; 0: neither
    uint8_t ip[16]


cdef int read_address(int descriptor, bint of_peer, Address* address) noexcept     # family 0 where it cannot be told
cdef int store_address(const system.sockaddr_storage* storage, Address* address) noexcept
cdef object unix_name(const system.sockaddr_storage* storage, system.socklen_t size)    # a path; None: it has none
cdef object address_object(const Address* address, object name)     # (host, port); else name, "" for None
