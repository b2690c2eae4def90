-- name: project
SELECT id FROM projects WHERE name = ?1;

-- name: add_project
INSERT INTO projects (name) VALUES (?1) RETURNING id;

-- name: objects
SELECT kind, name, settings, created, updated FROM objects
WHERE project = ?1 AND kind = ?2 AND name > ?3 ORDER BY name LIMIT ?4;

-- name: put_objects
-- rows: kind name settings
INSERT INTO objects (project, kind, name, settings, created, updated)
SELECT ?1, v.kind, v.name, v.settings, ?2, ?2 FROM {rows} AS v WHERE v.kind <> 0
ON CONFLICT (project, kind, name) DO UPDATE SET settings = excluded.settings, updated = excluded.updated;

-- name: objects_to_seal
SELECT project, kind, name, settings FROM objects
WHERE instr(settings, '"secret":"') OR instr(replace(settings, '"secret":{"sealed":"' || ?1, ''), '"secret":{"sealed":"');

-- name: seal_object
UPDATE objects SET settings = ?4 WHERE project = ?1 AND kind = ?2 AND name = ?3;

-- name: versions_to_seal
SELECT project, function, number, settings FROM versions
WHERE instr(settings, '"secret":"') OR instr(replace(settings, '"secret":{"sealed":"' || ?1, ''), '"secret":{"sealed":"');

-- name: seal_version
UPDATE versions SET settings = ?4 WHERE project = ?1 AND function = ?2 AND number = ?3;

-- name: remove_object
DELETE FROM objects WHERE project = ?1 AND kind = ?2 AND name = ?3;

-- name: remove_versions
DELETE FROM versions WHERE project = ?1 AND function = ?2;

-- name: drop_versions
DELETE FROM versions
WHERE project = ?1 AND function = ?2 AND live = 0 AND number IN (SELECT value FROM json_each(?3));

-- name: last_change
SELECT coalesce(max(sequence), 0) FROM changes WHERE project = ?1;

-- name: add_changes
-- rows: sequence action kind name before after
INSERT INTO changes (project, sequence, at, action, kind, name, before, after)
SELECT ?1, v.sequence, ?2, v.action, v.kind, v.name, nullif(v.before, ''), nullif(v.after, '')
FROM {rows} AS v WHERE v.sequence <> 0;

-- name: changes
SELECT sequence, at, action, kind, name, before, after FROM changes
WHERE project = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3;

-- name: add_version
INSERT INTO versions (project, function, number, bundle, settings, created, live)
SELECT ?1, ?2, coalesce(max(number), 0) + 1, ?3, ?4, ?5, 0 FROM versions WHERE project = ?1 AND function = ?2
RETURNING number;

-- name: live_version
SELECT number FROM versions WHERE project = ?1 AND function = ?2 AND live = 1;

-- name: make_live
UPDATE versions
SET live = (number = ?3), previous = CASE WHEN number = ?3 AND ?4 < ?3 THEN coalesce(previous, ?4) ELSE previous END
WHERE project = ?1 AND function = ?2
    AND EXISTS (SELECT 1 FROM versions WHERE project = ?1 AND function = ?2 AND number = ?3);

-- name: versions
SELECT function, number, bundle, settings, created, live, previous FROM versions
WHERE project = ?1 AND (?2 IS NULL OR function = ?2) ORDER BY function, number;

-- name: save_note
INSERT INTO notes (project, name, body) VALUES (?1, ?2, ?3)
ON CONFLICT (project, name) DO UPDATE SET body = excluded.body;

-- name: forget_note
DELETE FROM notes WHERE project = ?1 AND name = ?2;

-- name: note
SELECT body FROM notes WHERE project = ?1 AND name = ?2;

-- name: notes
SELECT name, body FROM notes WHERE project = ?1 AND name >= ?2 AND name < ?2 || char(1114111);

-- name: count_lines
UPDATE projects SET lines = lines + ?2 WHERE id = ?1 RETURNING lines;

-- name: add_output
-- rows: position task pipeline function attempt at stream text
INSERT INTO output (project, position, task, pipeline, function, attempt, at, stream, text)
SELECT ?1, v.position, v.task, v.pipeline, v.function, v.attempt, v.at, v.stream, v.text
FROM {rows} AS v WHERE v.position <> 0;

-- name: epoch
SELECT epoch FROM owner;

-- name: take_over
UPDATE owner SET epoch = epoch + 1 RETURNING epoch;
