//! Body patterns: compiled once into small tables, walked while the body streams.
