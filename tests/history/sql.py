"""The history's SQL on a current ClickHouse, in this process (chdb): tables, lifetime, rows inserted twice, every query.

    sql.py FOLDER_OF_SQL

Ends with "N checks passed"; any failure is an exception.
"""

import re
import sys
import tempfile

from chdb import session

ROWS = """\
{"at":1790000000,"batch":7,"region":4,"source":"sun4-1-1","content_server":1,"file":"c1/a.jpg","size":100,"downloads":2.0,"bytes":200}
{"at":1790000000,"batch":7,"region":5,"source":"cache5-1","content_server":1,"file":"c1/a.jpg","size":100,"downloads":1.0,"bytes":100}
{"at":1790003600,"batch":8,"region":4,"source":"sun4-1-1","content_server":2,"file":"c2/b.jpg","size":50,"downloads":1.5,"bytes":75}
"""
DAY = "2026-09-21"
EXPECTED = {
    "top": [["c1/a.jpg", "3", "300", "2"], ["c2/b.jpg", "1.5", "75", "1"]],
    "hours": [["4", f"{DAY} 14:00:00", "200", "2"], ["4", f"{DAY} 15:00:00", "75", "1.5"], ["5", f"{DAY} 14:00:00", "100", "1"]],
    "file": [[f"{DAY} 14:00:00", "4", "2", "200", "1"], [f"{DAY} 14:00:00", "5", "1", "100", "1"]],
    "servers": [["sun4-1-1", "275", "3.5", "2"], ["cache5-1", "100", "1", "1"]],
    "owners": [["1", "300", "1"], ["2", "75", "1"]],
}


def statements(text):
    """The statements of a file, by the name in the comment before each, or by their place."""
    found, name, code = {}, None, ""
    for line in text.splitlines():
        named = re.match(r"-- (\w+): ", line)
        name = named[1] if named else name
        code += line.split("--")[0].rstrip() + "\n"
        while ";" in code:
            statement, code = code.split(";", 1)
            found[name or len(found)] = statement.strip()
            name = None
    return found


def main(folder):
    read = lambda name: statements(open(f"{folder}/{name}.sql").read())
    checks = 0
    with tempfile.TemporaryDirectory() as place:
        engine = session.Session(place)

        def ask(statement, **parameters):
            return [line.split("\t") for line in str(engine.query(statement, "TabSeparated", params=parameters)).splitlines()]

        print("ClickHouse", ask("SELECT version()")[0][0])
        for statement in read("tables").values():
            ask(statement)
            ask(statement)
        for _ in range(2):
            ask(f"INSERT INTO sun.downloads FORMAT JSONEachRow {ROWS}")
        for name, query in read("queries").items():
            if name == "days":
                continue
            said = ask(query, day=DAY, file="c1/a.jpg")
            assert said == EXPECTED[name], (name, said)
            checks += 1
        ask("OPTIMIZE TABLE sun.downloads FINAL")
        days = ask(read("queries")["days"])
        assert days == [[DAY, "3", "3", "375"]], days
        partitions = ask("SELECT DISTINCT toUInt32(partition) FROM system.parts WHERE database = 'sun' AND table = 'downloads' AND active")
        assert partitions == [["20260921"]], partitions
        for statement in read("ttl").values():
            ask(statement)
        assert "TTL at + toIntervalDay(90)" in ask("SHOW CREATE TABLE sun.downloads")[0][0]
        ask("ALTER TABLE sun.downloads DROP PARTITION 20260921")
        assert ask("SELECT count() FROM sun.downloads") == [["0"]]
        checks += 4
    print(f"{checks} checks passed")


main(sys.argv[1])
