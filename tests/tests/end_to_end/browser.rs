//! The demo's gallery, in a real browser.
