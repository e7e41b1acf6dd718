"""The system calls that only Linux has: declarations only."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from wsev._core.system cimport sockaddr, socklen_t


cdef extern from "<sys/socket.h>" nogil:
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLEXCLUSIVE
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int set, int operation, int fd, epoll_event* event)
    int epoll_wait(int set, epoll_event* events, int count, int timeout)


cdef extern from "<sys/mman.h>" nogil:
    int PROT_READ
    int PROT_WRITE
    int MAP_SHARED
    int MAP_POPULATE
    int MADV_DONTFORK
    void* MAP_FAILED
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)
    int madvise(void* address, size_t size, int advice)


cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)


# GCC's and clang's own; what a ring shares with the kernel is read and written through them.
cdef extern from * nogil:
    int __ATOMIC_ACQUIRE
    int __ATOMIC_RELEASE
    uint32_t __atomic_load_n(uint32_t* place, int order)
    void __atomic_store_n(uint32_t* place, uint32_t value, int order)


# io_uring(7).  Declared here and not taken from <linux/io_uring.h>, which old build systems have not or have half of;
# numbers and layouts are the kernel's for good, and the same on all architectures that Python runs on.
cdef enum:
    SYS_IO_URING_SETUP = 425
    SYS_IO_URING_ENTER = 426
    IORING_OP_SENDMSG = 9
    IORING_OP_SEND = 26
    IORING_SETUP_SUBMIT_ALL = 1 << 7        # Linux 5.18: a send that fails does not stop those behind it
    IORING_FEAT_SINGLE_MMAP = 1 << 0        # Linux 5.4
    IORING_ENTER_GETEVENTS = 1 << 0
    IORING_OFF_SQ_RING = 0
    IORING_OFF_SQES = 0x10000000


cdef struct io_uring_sqe:
    uint8_t opcode
    uint8_t flags
    uint16_t ioprio
    int32_t fd
    uint64_t off
    uint64_t addr
    uint32_t len
    uint32_t msg_flags
    uint64_t user_data
    uint64_t padding[3]


cdef struct io_uring_cqe:
    uint64_t user_data
    int32_t res
    uint32_t flags


cdef struct io_sqring_offsets:
    uint32_t head
    uint32_t tail
    uint32_t ring_mask
    uint32_t ring_entries
    uint32_t flags
    uint32_t dropped
    uint32_t array
    uint32_t resv1
    uint64_t user_addr


cdef struct io_cqring_offsets:
    uint32_t head
    uint32_t tail
    uint32_t ring_mask
    uint32_t ring_entries
    uint32_t overflow
    uint32_t cqes
    uint32_t flags
    uint32_t resv1
    uint64_t user_addr


cdef struct io_uring_params:
    uint32_t sq_entries
    uint32_t cq_entries
    uint32_t flags
    uint32_t sq_thread_cpu
    uint32_t sq_thread_idle
    uint32_t features
    uint32_t wq_fd
    uint32_t resv[3]
    io_sqring_offsets sq_off
    io_cqring_offsets cq_off
