//! HTTP/1.1, the client's side, without I/O.

pub mod request;
