-- What `make demo` runs: tweets from Kafka into tables that keep themselves
-- up to date.  Set bootstrap to the servers of a broker with a topic
-- "twitter", and it works anywhere:
--
--	psql -v bootstrap=localhost:9092 -f demo/pipeline.sql

CREATE EXTENSION weir;
CREATE SERVER kafka FOREIGN DATA WRAPPER weir_kafka OPTIONS (bootstrap_servers :'bootstrap');

-- raw stream -> cleanse and normalize: typed columns; tweets without
-- user.lang are dropped and counted, broken ones are dead letters
SELECT weir.create_source('tweets', server => 'kafka', topic => 'twitter',
    columns    => $$ id    bigint NOT NULL,
                     at    timestamptz OPTIONS (path '$.timestamp_ms'),   -- epoch milliseconds as a string
                     lang  text OPTIONS (path '$.user.lang'),
                     text  text,
                     raw   jsonb OPTIONS (path '$') $$,                   -- the whole document
    filter     => $$ lang IS NOT NULL $$,
    event_time => 'at', max_out_of_orderness => '1 minute');

-- the data lake: English tweets as they are, bucketed by the minute
CREATE SCHEMA lake;
SELECT weir.create_stream('english', $$
    SELECT date_trunc('minute', t.at) AS bucket, t.id, t.at, t.text, t.raw
    FROM   tweets t
    WHERE  t.lang = 'en' $$, target => 'lake.english');

-- an ordinary table: index it as you like
CREATE INDEX ON lake.english (at);

-- the dashboard: tweets per language in windows of 10 s, enriched with the
-- language's name from an ordinary table
CREATE TABLE languages (code text PRIMARY KEY, name text);
INSERT INTO languages VALUES
    ('en', 'English'), ('ja', 'Japanese'), ('es', 'Spanish'), ('pt', 'Portuguese'), ('ar', 'Arabic'),
    ('fr', 'French'), ('tr', 'Turkish'), ('de', 'German'), ('ko', 'Korean'), ('id', 'Indonesian');
SELECT weir.create_stream('per_language', $$
    SELECT w.window_start, w.window_end, coalesce(l.name, t.lang) AS language, count(*) AS tweets
    FROM   tweets t
           CROSS JOIN weir.tumble(t.at, '10 seconds') w
           LEFT JOIN languages l ON l.code = t.lang
    GROUP  BY w.window_start, w.window_end, coalesce(l.name, t.lang) $$);

-- trends: words of the last minute, every 10 s
SELECT weir.create_stream('words', $$
    SELECT w.window_start, w.window_end, word, count(*) AS n
    FROM   tweets t
           CROSS JOIN LATERAL regexp_split_to_table(lower(t.text), '\s+') AS word
           CROSS JOIN weir.hop(t.at, '1 minute', '10 seconds') w
    WHERE  word <> ''
    GROUP  BY w.window_start, w.window_end, word $$, emit => 'on_close');
