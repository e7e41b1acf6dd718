"""The system calls that only Linux has: declarations only."""

from libc.stdint cimport uint32_t

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
