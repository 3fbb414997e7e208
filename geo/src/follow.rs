//! Following a geo server's table.
mod course;
