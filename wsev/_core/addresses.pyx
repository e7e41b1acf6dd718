"""Addresses: what the kernel says of a socket's ends, packed, and as Python says it.

Owns both forms.  Knows no transport.
"""

from libc.string cimport memcpy

from wsev._core cimport system


cdef int read_address(int descriptor, bint of_peer, Address* address) noexcept:
    cdef system.sockaddr_storage storage
    cdef system.socklen_t size = sizeof(storage)
    cdef int failed
    address.family = 0
    if of_peer:
        failed = system.getpeername(descriptor, <system.sockaddr*> &storage, &size)
    else:
        failed = system.getsockname(descriptor, <system.sockaddr*> &storage, &size)
    if not failed:
        store_address(&storage, address)
    return 0


cdef int store_address(const system.sockaddr_storage* storage, Address* address) noexcept:
    cdef const system.sockaddr_in* four = <const system.sockaddr_in*> storage
    cdef const system.sockaddr_in6* six = <const system.sockaddr_in6*> storage
    if storage.ss_family == system.AF_INET:
        address.family = 4
        memcpy(address.ip, &four.sin_addr, 4)
        address.port = system.ntohs(four.sin_port)
    elif storage.ss_family == system.AF_INET6:
        address.family = 6
        memcpy(address.ip, &six.sin6_addr, 16)
        address.port = system.ntohs(six.sin6_port)
    else:
        address.family = 0
    return 0


cdef object unix_name(const system.sockaddr_storage* storage, system.socklen_t size):
    cdef const system.sockaddr_un* local = <const system.sockaddr_un*> storage
    cdef Py_ssize_t length = <Py_ssize_t> size - (<char*> local.sun_path - <char*> local)
    cdef bytes path
    if storage.ss_family != system.AF_UNIX or length <= 0:
        return None
    path = (<const char*> local.sun_path)[:length]
    if path[0]:
        path = path.partition(b"\0")[0]    # a file; without it, one of Linux's abstract names
    return path.decode("utf-8", "surrogateescape")


cdef object address_object(const Address* address, object name):
    cdef char text[64]
    if not address.family:
        return "" if name is None else name
    system.inet_ntop(system.AF_INET if address.family == 4 else system.AF_INET6, address.ip, text, sizeof(text))
    return ((<bytes> text).decode("ascii"), address.port)
