-- What the demo's streams made of the tweets, compared with what was sent;
-- expected is what demo.sh counted: {"broken": n, "no lang": n, "en": n, ...}.
-- The first line of output is the number of differences.

CREATE TEMP TABLE checked (ord int, what text, sent bigint, found bigint, detail text);

-- per language: in the windows, or late and kept
INSERT INTO checked
SELECT 1, coalesce(l.name, e.key), e.value::bigint,
       coalesce(w.n, 0) + coalesce(d.n, 0),
       format('%s + %s late', to_char(coalesce(w.n, 0), 'FM999,999,990'), coalesce(d.n, 0))
FROM json_each_text(:'expected') e
     LEFT JOIN languages l ON l.code = e.key
     LEFT JOIN (SELECT language, sum(tweets) AS n FROM per_language GROUP BY 1) w ON w.language = coalesce(l.name, e.key)
     LEFT JOIN (SELECT staged_row ->> 'lang' AS lang, count(*) AS n FROM weir.dead_letter
                WHERE stream = 'per_language' AND reason = 'late' GROUP BY 1) d ON d.lang = e.key
WHERE e.key NOT IN ('broken', 'no lang');

-- the lake
INSERT INTO checked
SELECT 2, 'English tweets in the lake', (:'expected'::json ->> 'en')::bigint, count(*), NULL
FROM lake.english;
INSERT INTO checked
SELECT 2, 'of these, distinct', (:'expected'::json ->> 'en')::bigint, count(DISTINCT id), NULL FROM lake.english;

-- broken records
INSERT INTO checked
SELECT 3, 'broken, as dead letters', coalesce((:'expected'::json ->> 'broken')::bigint, 0), count(*),
       count(DISTINCT (kafka_partition, kafka_offset)) || ' offsets'
FROM weir.dead_letter WHERE stream IS NULL;

-- each English window counted again over the lake, with the ordinary
-- weir.tumble; tweets that came late for it are in the lake, too
WITH again AS (
    SELECT w.window_start, count(*) AS n
    FROM   lake.english t CROSS JOIN weir.tumble(t.at, '10 seconds') w
    GROUP  BY 1
), late AS (
    SELECT window_start, count(*) AS n FROM weir.dead_letter
    WHERE  stream = 'per_language' AND reason = 'late' AND staged_row ->> 'lang' = 'en'
    GROUP  BY 1
), both_ways AS (
    SELECT coalesce(a.n, 0) AS again, coalesce(p.tweets, 0) + coalesce(l.n, 0) AS kept
    FROM   again a
           FULL JOIN (SELECT * FROM per_language WHERE language = 'English') p USING (window_start)
           FULL JOIN late l USING (window_start)
)
INSERT INTO checked
SELECT 4, 'English windows, counted again', count(*), count(*) FILTER (WHERE again = kept), NULL FROM both_ways;

SELECT count(*) FILTER (WHERE sent IS DISTINCT FROM found) FROM checked;
SELECT '';
SELECT format('%-30s%10s%10s  %-9s %s', '', 'sent', 'found', '', '');
SELECT format('%-30s%10s%10s  %-9s %s', what, to_char(sent, 'FM999,999,990'), to_char(found, 'FM999,999,990'),
              CASE WHEN sent = found THEN 'ok' ELSE 'DIFFERENT' END, detail)
FROM checked ORDER BY ord, sent DESC, what;
SELECT format('%-30s%10s%10s  %-9s %s', 'without a language', to_char(coalesce((:'expected'::json ->> 'no lang')::bigint, 0), 'FM999,999,990'),
              to_char(sum(rows_filtered), 'FM999,999,990'), '', 'counted since the last start')
FROM weir.stat_source WHERE source = 'tweets' AND stream IS NULL;
SELECT '';
SELECT format('%s records: in the tables, among the dead letters, or dropped by the filter.',
              to_char((SELECT sum(value::bigint) FROM json_each_text(:'expected')), 'FM999,999,990'))
WHERE NOT EXISTS (SELECT FROM checked WHERE sent IS DISTINCT FROM found);
