"""The system calls that the core makes: declarations only."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "<errno.h>" nogil:
    int errno
    int EAGAIN
    int EWOULDBLOCK
    int EINTR
    int EPIPE
    int ECONNRESET
    int ECONNABORTED
    int EMFILE
    int ENFILE
    int ENOBUFS
    int ENOMEM


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len


cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    int MSG_DONTWAIT
    int SHUT_WR
    int AF_INET
    int AF_INET6
    int AF_UNIX
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int getpeername(int fd, sockaddr* address, socklen_t* size)
    int getsockname(int fd, sockaddr* address, socklen_t* size)
    int shutdown(int fd, int how)


cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_scope_id
        in6_addr sin6_addr


cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int family, const void* source, char* target, socklen_t size)
    uint16_t ntohs(uint16_t number)


cdef extern from "<sys/un.h>" nogil:
    struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]


cdef extern from "<unistd.h>" nogil:
    int close(int fd)


cdef extern from "<time.h>" nogil:
    int CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* time)
