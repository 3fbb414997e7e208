-- The history of downloads: what the popularity API inserts ([history] of its config). `sunctl history init` carries this
-- out, with the config's database in the place of sun. ClickHouse 18.16 or newer.
--
-- An insert whose answer was lost is sent again with the same rows: ReplacingMergeTree keeps one of each, when it merges;
-- until then both are there, so a sum that must be exact says FINAL. A partition is a day (UTC): days go at once.

CREATE DATABASE IF NOT EXISTS sun;

CREATE TABLE IF NOT EXISTS sun.downloads
(
    at             DateTime('UTC'),  -- when the batch began
    batch          UInt64,           -- its number: when it was sealed, microseconds since 1970
    region         UInt16,           -- of the clients
    source         String,           -- the sun or cache that sent the file
    content_server UInt32,           -- whose file it is
    file           String,           -- canonical name, c100500/path/to/a.jpg
    size           UInt64,           -- bytes of the whole file
    downloads      Float64,          -- sum over requests of bytes sent / size, at most 1 per request
    bytes          UInt64            -- bytes sent
)
ENGINE = ReplacingMergeTree()
PARTITION BY toYYYYMMDD(at)
ORDER BY (region, file, at, source, batch);
