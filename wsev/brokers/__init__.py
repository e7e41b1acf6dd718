"""What carries published messages between workers: the interface, and the mesh of Unix sockets."""
