//! DNS without I/O: messages, cache, hosts and resolv.conf, and the resolver that joins them.
