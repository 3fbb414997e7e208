//! A topology for the self-check's tests.

/// The text of one with a group of so many suns.
pub(super) fn topology(suns: usize) -> String {
    let mut text = "version = 1\ndomain = \"example.net\"\ndefault_region = 4\n\
        [content_servers]\nurl = \"http://127.0.0.1:9100/cs{number}\"\nnumbers = [\"1-9\"]\n\
        [[region]]\nid = 4\nname = \"R\"\nlatitude = 1.0\nlongitude = 1.0\n\
        [[group]]\nname = \"sun4-2\"\nsubnet = \"192.0.2.0/24\"\n"
        .to_owned();
    for number in 1..=suns {
        text += &format!(
            "[[sun]]\nname = \"sun4-2-{number}\"\naddresses = [\"192.0.2.{number}\"]\n\
             internal = \"10.0.0.{number}:8081\"\nweight = 100\n"
        );
    }
    text
}
