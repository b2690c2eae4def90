-- name: add_map
INSERT INTO maps (project, id, pipeline, items, created, stragglers, finished, ended) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8);

-- name: known_map
SELECT task FROM keys WHERE project = ?1 AND pipeline = ?2 AND key = ?3 AND expires > ?4;

-- name: cancel_map
UPDATE maps SET cancelled = coalesce(cancelled, ?3) WHERE project = ?1 AND id = ?2;

-- name: finish_map
UPDATE maps SET finished = ?3, ended = ?4 WHERE project = ?1 AND id = ?2;

-- name: add_twin
INSERT INTO twins (project, map, item, task) VALUES (?1, ?2, ?3, ?4);

-- name: reopen_maps
UPDATE maps SET finished = NULL, ended = NULL
WHERE project = ?1 AND finished IS NOT NULL AND id IN (
    SELECT (
        SELECT CASE WHEN one.id + one.items >= each.value THEN one.id END FROM maps AS one
        WHERE one.project = ?1 AND one.id < each.value ORDER BY one.id DESC LIMIT 1
    ) FROM json_each(?2) AS each
);

-- name: prune_maps
DELETE FROM maps WHERE project = ?1 AND id IN (
    SELECT id FROM maps AS old
    WHERE old.project = ?1 AND old.created < ?2 AND NOT EXISTS (
        SELECT 1 FROM tasks WHERE tasks.project = ?1 AND tasks.id > old.id AND tasks.id <= old.id + old.items
    )
    LIMIT ?3
);

-- name: prune_twins
DELETE FROM twins WHERE project = ?1 AND NOT EXISTS (
    SELECT 1 FROM maps WHERE maps.project = ?1 AND maps.id = twins.map
);

-- name: map
SELECT id, pipeline, items, created, stragglers, cancelled, finished, ended FROM maps WHERE project = ?1 AND id = ?2;

-- name: maps
SELECT id, pipeline, items, created, stragglers, cancelled, finished, ended FROM maps
WHERE project = ?1 AND id < ?2 AND (?3 = 0 OR finished IS NULL)
ORDER BY id DESC LIMIT ?4;

-- name: twins
SELECT item, task FROM twins WHERE project = ?1 AND map = ?2;

-- name: ends
SELECT json_group_array(json_array(id, state, outcome)) FROM (
    SELECT id, state, outcome FROM tasks WHERE project = ?1 AND id > ?2 AND id <= ?3 ORDER BY id LIMIT ?4
);

-- name: sizes
SELECT json_group_array(json_array(id, ifnull(length(result), 0)))
FROM tasks WHERE project = ?1 AND id IN (SELECT value FROM json_each(?2));

-- name: results
WITH chosen (id) AS (SELECT value FROM json_each(?2))
{stored};

-- name: not_ended
WITH chosen (id) AS (
    SELECT id FROM tasks WHERE project = ?1 AND id > ?2 AND id <= ?3 AND state < 4 ORDER BY id LIMIT ?4
)
{stored};
