//! The same bytes read by bgpkit-parser, and bytes that it wrote.
