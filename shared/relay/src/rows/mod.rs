//! Rows of a file: sniffed, decoded and checked as a stream.
