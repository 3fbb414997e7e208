//! Every way for a document to be refused: one change to a good one, and what is then said.

use super::*;

#[test]
fn a_value_out_of_range_is_refused_with_its_key_and_what_is_allowed() {
    check("version = 7", "version = -1", "version = -1: a version is 0 or more");
    check("weight = 50", "weight = 300", "sun[0] sun4-2-2: weight = 300: a weight is 0..=256");
    check("weight = 50", "weight = -1", "sun[0] sun4-2-2: weight = -1: a weight is 0..=256");
    check("http_port = 80\n", "http_port = 0\n", "sun[0] sun4-2-2: http_port = 0: a port is 1..=65535");
    check("https_port = 8443", "https_port = 65536", "sun[1] sun4-2-1: https_port = 65536: a port is 1..=65535");
    check("https_port = 8443", "https_port = 8080", "sun[1] sun4-2-1: http_port = 8080: https_port is the same");
    let nic = "sun[1] sun4-2-1: nic_gbps = ";
    check("nic_gbps = 40", "nic_gbps = 0", &format!("{nic}0.0: a network card has 0.001..=10000 Gbit/s"));
    check("nic_gbps = 40", "nic_gbps = nan", &format!("{nic}NaN: a network card has 0.001..=10000 Gbit/s"));
    check("nic_gbps = 40", "nic_gbps = inf", &format!("{nic}inf: a network card has 0.001..=10000 Gbit/s"));
    check("= 59.94", "= 90.1", "region[0] Saint Petersburg: latitude = 90.1: a latitude is -90..=90 degrees north");
    check("= 37.6", "= -181", "region[1] Moscow: longitude = -181.0: a longitude is -180..=180 degrees east");
    check("bytes = 2_000_000_000_000", "bytes = 0", "cache[0] cache4-1: bytes = 0: a cache has 1 byte or more");
    check("ttl_s = 60", "ttl_s = -1", "class[0] video: ttl_s = -1: a time is 0..=2147483647 seconds");
    check(
        "file_bytes_max = 1000",
        "file_bytes_max = 0",
        "class[0] video: file_bytes_max = 0: a largest size is 1 byte or more",
    );
}

#[test]
fn names_say_where_things_are() {
    let sun = "a sun is sun4-2-1: region, group and number, each 0..=65535";
    for name in ["sun4-2", "sun4-2-1-1", "sun4-2-", "sun04-2-3", "sun4-2-+3", "sun4-2-65536", "Sun4-2-3", "cache4-3"] {
        let expected = format!("sun[0] {name}: name = {name:?}: {sun}");
        check(r#"name = "sun4-2-2""#, &format!("name = {name:?}"), &expected);
    }
    check("\"sun4-2-2\"", "\"sun4-9-2\"", "sun[0] sun4-9-2: name = \"sun4-9-2\": there is no group sun4-9");
    check(
        "\"cache4-1\"",
        "\"cache4\"",
        "cache[0] cache4: name = \"cache4\": a cache is cache4-1: region and number, each 0..=65535",
    );
    check("\"cache4-1\"", "\"cache6-1\"", "cache[0] cache6-1: name = \"cache6-1\": there is no region 6");
    check("\"sun4-1\"", "\"sun6-1\"", "group[1] sun6-1: name = \"sun6-1\": there is no region 6");
    check("\"sun4-1\"", "\"4-1\"", "group[1] 4-1: name = \"4-1\": a group is sun4-2: region and group, each 0..=65535");
}

#[test]
fn nothing_is_there_twice() {
    let again = "sun[1] sun4-2-2: name = \"sun4-2-2\": another server has this name";
    check("\"sun4-2-1\"", "\"sun4-2-2\"", again);
    check("\"10.4.2.1:8081\"", "\"10.4.2.2:8081\"", "sun[1] sun4-2-1: internal = 10.4.2.2:8081: sun4-2-2 has it too");
    check("[2001:db8::4:1]", "10.4.2.1", "cache[0] cache4-1: internal = 10.4.2.1:8081: sun4-2-1 has it too");
    check("192.0.2.70", "192.0.2.2", "cache[0] cache4-1: addresses = 192.0.2.2:443: sun4-2-2 has it too");
    check("\"2001:db8::2\"", "\"192.0.2.2\"", "sun[0] sun4-2-2: addresses = \"192.0.2.2\": it is there twice");
    let added =
        GOOD.replacen("[[group]]", "[[region]]\nid = 4\nname = \"M\"\nlatitude = 0\nlongitude = 0\n[[group]]", 1);
    check_refused(&added, &["region[2] M: id = 4: another region has this id"]);
    check("\"sun4-1\"", "\"sun4-2\"", "group[1] sun4-2: name = \"sun4-2\": another group has this name");
    check("\"pictures\"", "\"video\"", "class[1] video: name = \"video\": another class has this name");
    // One address for several servers is fine where the ports differ.
    accept("192.0.2.1", "192.0.2.2");
}

#[test]
fn what_is_mentioned_exists() {
    check("default_region = 4", "default_region = 6", "default_region = 6: there is no such region");
    check("[5]", "[6]", "region[1] Moscow: neighbours = 6: there is no such region");
    check("[5]", "[65540]", "region[1] Moscow: neighbours = 65540: there is no such region");
    check("[5]", "[4]", "region[1] Moscow: neighbours = 4: a region is not its own neighbour");
    check("[5]", "[5, 5]", "region[1] Moscow: neighbours = 5: it is there twice");
}

#[test]
fn subnets_are_apart() {
    let overlap = "it overlaps 192.0.2.0/26, which is sun4-2's";
    check("192.0.2.64/26", "192.0.2.0/26", &format!("group[1] sun4-1: subnet = 192.0.2.0/26: {overlap}"));
    check("192.0.2.64/26", "192.0.2.32/28", &format!("group[1] sun4-1: subnet = 192.0.2.32/28: {overlap}"));
    check("192.0.2.64/26", "192.0.0.0/16", &format!("group[1] sun4-1: subnet = 192.0.0.0/16: {overlap}"));
    let bits = "it has bits behind its length; write 192.0.2.64/26";
    check("192.0.2.64/26", "192.0.2.65/26", &format!("group[1] sun4-1: subnet = \"192.0.2.65/26\": {bits}"));
    let form = "a subnet is 192.0.2.0/26 or 2001:db8::/64";
    check("192.0.2.64/26", "192.0.2.64", &format!("group[1] sun4-1: subnet = \"192.0.2.64\": {form}"));
    check("192.0.2.64/26", "192.0.2.64/33", &format!("group[1] sun4-1: subnet = \"192.0.2.64/33\": {form}"));
    accept("192.0.2.64/26", "2001:db8::/64");
}

#[test]
fn addresses_are_addresses_of_one_host() {
    let sun = "sun[1] sun4-2-1: addresses = ";
    check("192.0.2.1\"", "sun\"", &format!("{sun}\"sun\": an address is 192.0.2.1 or 2001:db8::1"));
    check("192.0.2.1\"", "0.0.0.0\"", &format!("{sun}\"0.0.0.0\": an address is one host's"));
    check("192.0.2.1\"", "ff02::1\"", &format!("{sun}\"ff02::1\": an address is one host's"));
    for local in ["fe80::1", "169.254.0.1"] {
        let said = format!("{sun}\"{local}\": it is of one link alone: clients do not reach it");
        check("192.0.2.1\"", &format!("{local}\""), &said);
    }
    check("[\"192.0.2.1\"]", "[]", &format!("{sun}[]: a server has 1..=64 addresses"));
    let internal = "it is where other servers reach it, 10.4.2.1:8081 or [2001:db8::1]:8081";
    for wrong in ["10.4.2.1", "10.4.2.1:0", "0.0.0.0:8081", "sun:8081", "http://10.4.2.1:8081"] {
        check("10.4.2.1:8081", wrong, &format!("sun[1] sun4-2-1: internal = {wrong:?}: {internal}"));
    }
}

#[test]
fn only_a_cache_has_bytes() {
    check("nic_gbps = 40", "bytes = 5", "sun[1] sun4-2-1: bytes = 5: only a cache has bytes");
    check(
        "bytes = 2_000_000_000_000",
        "",
        "cache[0] cache4-1: bytes is missing: a cache says how much disk it may fill",
    );
}

#[test]
fn the_domain_is_a_domain() {
    let allowed = "a domain is labels of a-z, 0-9 and - joined by dots, in lower case, at most 200 bytes";
    for wrong in ["", "Example.org", "example.org.", ".example.org", "-a.org", "a_b.org", "a b", "a/b", "a:80"] {
        check("\"example.org\"", &format!("{wrong:?}"), &format!("domain = {wrong:?}: {allowed}"));
    }
    accept("\"example.org\"", "\"localhost\"");
    accept("\"example.org\"", "\"eu-1.cdn.localhost\"");
}

#[test]
fn the_content_servers_are_told_by_a_plain_template() {
    let url = "http://cs{number}.storage.example.org";
    let check_url = |wrong: &str, allowed: &str| {
        check(url, wrong, &format!("content_servers: url = {wrong:?}: {allowed}"));
    };
    check_url("http://cs.example.org", "it holds {number}, http://cs{number}.storage.example.org");
    check_url("ftp://cs{number}.example.org", "it begins with https:// or http://");
    check_url("cs{number}.example.org", "it begins with https:// or http://");
    check_url("http://cs{number}/", "it does not end with a slash, since paths begin with one");
    for wrong in
        ["cs{number}/a//b", "cs{number}/..", "cs{number}/a?b", "cs{number}/%61", "cs{number}/a#", "a/ {number}"]
    {
        let allowed = "its path is canonical: no empty or dot segment, no query, nothing needlessly encoded";
        check_url(&format!("http://{wrong}"), allowed);
    }
    for wrong in
        ["u:p@cs{number}", "cs{number}:0", "cs{number}:", "cs{number}:+80", "h:{number}", "CS{number}", "[::{number}"]
    {
        let allowed =
            "between the scheme and the path are a host in lower case or an address, and a port 1..=65535 or none";
        check_url(&format!("http://{wrong}"), allowed);
    }
}

#[test]
fn content_servers_can_have_a_public_name() {
    let with = |line: &str| Topology::parse(&GOOD.replace("numbers = [", &format!("{line}\nnumbers = [")));
    let address = |line: &str, scheme| {
        let name = CanonicalName::parse("c7/films/a.mp4").unwrap();
        with(line).unwrap().content_servers.public_url_of(scheme, &name)
    };
    assert_eq!(address("", Scheme::Https), None);
    let tls = "public = \"https://cs{number}.example.org:8443/media\"";
    let expected = Some("https://cs7.example.org:8443/media/films/a.mp4".to_owned());
    assert_eq!(address(tls, Scheme::Https), expected);
    assert_eq!(address(tls, Scheme::Http), expected);
    let plain = "public = \"http://cs{number}.example.org\"";
    assert_eq!(address(plain, Scheme::Https), None, "a page with TLS follows no link without");
    assert!(address(plain, Scheme::Http).is_some());
    let refused = with("public = \"ftp://cs{number}\"").unwrap_err().to_string();
    assert_eq!(refused, "content_servers: public = \"ftp://cs{number}\": it begins with https:// or http://");
}

#[test]
fn the_numbers_of_content_servers_are_disjoint_ranges() {
    let numbers = |wrong: &str, problem: &str| {
        check(r#"["100500", "1-199"]"#, wrong, &format!("content_servers: numbers = {problem}"));
    };
    let range = "a range is \"1-199\" or \"100500\", its ends 0..=4294967295, the first not above the last";
    numbers("[]", "[]: there are 1..=10000 ranges, \"1-199\" or \"100500\"");
    for wrong in ["", "-", "1-", "-1", "2-1", "1-2-3", "a", "01", "4294967296", "1 - 2"] {
        numbers(&format!("[{wrong:?}]"), &format!("{wrong:?}: {range}"));
    }
    numbers(r#"["5", "1-9"]"#, r#""5": it overlaps "1-9"; ranges are disjoint"#);
    numbers(r#"["1-9", "9-10"]"#, r#""9-10": it overlaps "1-9"; ranges are disjoint"#);
    accept(r#"["100500", "1-199"]"#, r#"["0", "1-4294967295"]"#);
}

#[test]
fn classes_are_sane() {
    check("\"video\"", "\"Video\"", "class[0] Video: name = \"Video\": a class's name has 1..=32 of a-z, 0-9, - and _");
    check("\"heavy\"", "\"big\"", "class[0] video: kind = \"big\": a kind is \"light\" or \"heavy\"");
    check("\"all\"", "\"some\"", "class[0] video: spread = \"some\": a spread is \"auto\" or \"all\"");
    check("[\"*.jpg\"]", "[]", "class[1] pictures: paths = []: a class has 1..=256 patterns");
    let slash = "a pattern begins with c or *, since names are c100500/path, without a leading slash";
    check("c*/video/*", "/c1/*", &format!("class[0] video: paths[1] = \"/c1/*\": {slash}"));
    let origin = "an origin is \"*\" or https://example.org[:port], lower case, no path";
    for wrong in ["example.org", "https://example.org/", "https://*.example.org", "null", "https://Example.org"] {
        check("https://example.org", wrong, &format!("class[0] video: cors.origins = {wrong:?}: {origin}"));
    }
    let alone =
        "class[0] video: cors.origins = [\"*\", \"http://127.0.0.1:8000\"]: \"*\" is all origins and stands alone";
    check("https://example.org", "*", alone);
    let header = "class[0] video: cors.expose_headers = \"a b\": a header's name is letters, digits and -";
    check("\"Age\"", "\"a b\"", header);
}

#[test]
fn heavy_classes_leave_a_quarter_to_others() {
    let share = |class: &str| {
        let class = format!("[[class]]\nname = \"one\"\npaths = [\"*.x\"]\n{class}\n");
        let topology = Topology::parse(&format!("{GOOD}\n{class}"));
        topology.map(|topology| topology.class_of(&CanonicalName::parse("c1/a.x").unwrap()).share_max)
    };
    assert_eq!(share("").unwrap(), 1.0);
    assert_eq!(share("kind = \"heavy\"").unwrap(), 0.75);
    assert_eq!(share("kind = \"heavy\"\nshare_max = 0.5").unwrap(), 0.5);
    let refused = share("share_max = 0.0").unwrap_err().to_string();
    assert!(refused.ends_with("one: share_max = 0.0: a share is 0.01..=1"), "{refused}");
}

#[test]
fn what_a_class_says_of_time_fits_its_policy() {
    check(
        "\"immutable\"",
        "\"none\"",
        "site[1].class[0] static: policy = \"none\": a policy is \"immutable\" or \"rfc\"",
    );
    let rfc = "only with policy = \"immutable\": under \"rfc\" responses say it";
    check("ttl_s = 60", "ttl_s = 60\npolicy = \"rfc\"", &format!("class[0] video: ttl_s = 60: {rfc}"));
    for key in ["ttl_s", "stale_if_error_s", "stale_while_revalidate_s"] {
        let problem = format!("site[1].class[1] upload: {key} = 1: {rfc}");
        check("bytes_max = 1000 }", &format!("bytes_max = 1000 }}\n{key} = 1"), &problem);
    }
    accept("bytes_max = 1000 }", "bytes_max = 1000 }\nnegative_ttl = { \"404\" = 0 }");
    let time = "a time is 0..=2147483647 seconds";
    check(
        "stale_if_error_s = 5",
        "stale_if_error_s = -1",
        &format!("site[1].class[0] static: stale_if_error_s = -1: {time}"),
    );
    check("\"503\" = 1", "\"503\" = -1", &format!("site[1].class[0] static: negative_ttl.503 = -1: {time}"));
    for wrong in ["200", "600", "0404", "4xx", ""] {
        let problem = format!("site[1].class[0] static: negative_ttl = {wrong:?}: a status is \"400\"..=\"599\"");
        check("\"503\" = 1", &format!("{wrong:?} = 1"), &problem);
    }
}

#[test]
fn sites_are_sane() {
    let form = "a host is labels of letters, digits and - joined by dots, without a port, at most 253 bytes";
    for wrong in ["", "a b", "cdn.example.org.", "cdn.example.org:80", "*.example.org", "a/b", "[::1]", "https://a"] {
        check("\"cdn.example.org\"", &format!("{wrong:?}"), &format!("site[1] {wrong}: host = {wrong:?}: {form}"));
    }
    let own = "under the domain, it is the name of a sun, a group or a cache";
    for wrong in ["sun4-2-1.example.org", "SUN9-9-9.example.org", "sun4-2.example.org", "cache4-1.example.org"] {
        check("\"cdn.example.org\"", &format!("{wrong:?}"), &format!("site[1] {wrong}: host = {wrong:?}: {own}"));
    }
    let domain = "site[1] Example.org: host = \"Example.org\": it is the domain itself";
    check("\"cdn.example.org\"", "\"Example.org\"", domain);
    let twice = "site[1] Www.Example.Net: host = \"Www.Example.Net\": another site has this host";
    check("\"cdn.example.org\"", "\"Www.Example.Net\"", twice);
    for other in ["sun4-2-1.example.net", "sun4.example.org", "127.0.0.1", "localhost"] {
        accept("\"cdn.example.org\"", &format!("{other:?}"));
    }
    for wrong in ["", "a:80", "http://a", "a b"] {
        let origin = format!("content_server = 7\norigin_host = {wrong:?}");
        check("content_server = 7", &origin, &format!("site[1] cdn.example.org: origin_host = {wrong:?}: {form}"));
    }
    let names = "another site asks this content server by another name: give both the same origin_host";
    let problem = format!("site[1] cdn.example.org: origin_host = \"cdn.example.org\": {names}");
    check("content_server = 7", "content_server = 5", &problem);
    accept("content_server = 7", "content_server = 5\norigin_host = \"WWW.Example.Net\"");
    let unknown = "there is no such content server";
    for wrong in ["200", "-1", "4294967296"] {
        let problem = format!("site[1] cdn.example.org: content_server = {wrong}: {unknown}");
        check("content_server = 7", &format!("content_server = {wrong}"), &problem);
    }
    let pattern = "a site's pattern begins with / or *, since it is about the path of a URL";
    check("\"*.css\"", "\"c7/*\"", &format!("site[1].class[0] static: paths[1] = \"c7/*\": {pattern}"));
    check("\"upload\"", "\"static\"", "site[1].class[1] static: name = \"static\": another class has this name");
    let query = "only a site's class has it: under /c... a query never counts";
    check("ttl_s = 60", "ttl_s = 60\nignore_query = false", &format!("class[0] video: ignore_query = false: {query}"));
    let upload = "site[1].class[1] upload: uploads.";
    check("bytes_max = 1000 }", "bytes_max = 0 }", &format!("{upload}bytes_max = 0: a longest body is 1 byte or more"));
    let rate = format!("{upload}bytes_per_second = -1: a rate is 1 byte per second or more, or 0 for no limit");
    check("bytes_max = 1000 }", "bytes_max = 1000, bytes_per_second = -1 }", &rate);
}

#[test]
fn every_problem_is_told_at_once() {
    let text = GOOD.replace("weight = 50", "weight = 300").replace("id = 5", "id = 70000").replace("*.jpg", "jpg");
    let problems = Topology::parse(&text).unwrap_err().problems;
    let expected = [
        "region[0] Saint Petersburg: id = 70000: an id is 0..=65535",
        "region[1] Moscow: neighbours = 5: there is no such region",
        "sun[0] sun4-2-2: weight = 300: a weight is 0..=256",
        "class[1] pictures: paths[0] = \"jpg\": a pattern begins with c or *, since names are c100500/path, without a \
         leading slash",
    ];
    assert_eq!(problems, expected);
    assert_eq!(Topology::parse(&text).unwrap_err().to_string(), expected.join("\n"));
}

#[test]
fn a_flood_of_problems_is_counted() {
    let suns = "[[sun]]\nname = \"x\"\naddresses = []\ninternal = \"\"\nweight = -1\n".repeat(300);
    let problems = Topology::parse(&GOOD.replace("[[cache]]", &(suns + "[[cache]]"))).unwrap_err().problems;
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100], "and 1399 more problems");
}

#[test]
fn a_document_that_cannot_be_read_names_line_and_column() {
    check(
        "weight = 50",
        "wieght = 50",
        "line 36, column 1: unknown field `wieght`, expected one of `name`, `addresses`, \
         `https_port`, `http_port`, `internal`, `weight`, `draining`, `nic_gbps`, `bytes`",
    );
    check("version = 7", "version = ", "line 2, column 11: string values must be quoted, expected literal string");
    check("id = 5", "id = \"5\"", "line 11, column 6: invalid type: string \"5\", expected i64");
    check("subnet = \"192.0.2.0/26\"", "", "line 23, column 1: missing field `subnet`");
    check("version = 7", "version = 7\nversion = 8", "line 3, column 1: duplicate key");
    check(
        "[content_servers]",
        "[content]",
        "line 6, column 2: unknown field `content`, expected one of `version`, \
         `domain`, `default_region`, `content_servers`, `signing`, `region`, `group`, `sun`, `cache`, `class`, `site`",
    );
}

#[test]
fn a_document_of_unreasonable_size_is_refused() {
    let text = "#".repeat(DOCUMENT_BYTES_MAX + 1);
    check_refused(&text, &["8388609 bytes: a topology has at most 8388608"]);
    assert!(Topology::parse("").is_err());
}

#[test]
fn what_costs_more_than_linear_is_bounded() {
    let groups: String = (0..5000).map(|n| format!("[[group]]\nname = \"sun5-{n}\"\nsubnet = \"::/0\"\n")).collect();
    let problems = Topology::parse(&(GOOD.to_owned() + &groups)).unwrap_err().problems;
    assert_eq!(problems, ["group: there are 5002: at most 4096"]);

    let sun = |n: u32| {
        let addresses = format!("addresses = [\"2001:db8::5:{n:x}\"]\ninternal = \"[2001:db8::6:{n:x}]:81\"");
        format!("[[sun]]\nname = \"sun4-1-{n}\"\n{addresses}\nweight = 1\n")
    };
    let suns: String = (0..511).map(sun).collect();
    let problems = Topology::parse(&(GOOD.to_owned() + &suns)).unwrap_err().problems;
    assert_eq!(problems, ["region 4: 513 suns, 1 caches: at most 512 of each"]);
    let suns: String = (0..510).map(sun).collect();
    assert!(Topology::parse(&(GOOD.to_owned() + &suns)).is_ok());
}

/// Makes one change to the good document and expects one problem.
#[track_caller]
fn check(good: &str, wrong: &str, problem: &str) {
    assert!(GOOD.contains(good), "{good}");
    check_refused(&GOOD.replacen(good, wrong, 1), &[problem]);
}

#[track_caller]
fn check_refused(text: &str, expected: &[&str]) {
    assert_eq!(Topology::parse(text).unwrap_err().problems, expected);
}

/// Makes one change to the good document and expects no problem.
#[track_caller]
fn accept(good: &str, other: &str) {
    assert!(GOOD.contains(good), "{good}");
    let problems = Topology::parse(&GOOD.replacen(good, other, 1)).err().map(|error| error.problems);
    assert_eq!(problems, None, "{other}");
}
