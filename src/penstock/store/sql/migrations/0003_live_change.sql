-- The version that a version took over from when it first went live: where a rollback leads.
ALTER TABLE versions ADD COLUMN previous INTEGER;
UPDATE versions
SET previous = (
    SELECT json_extract(changes.before, '$.version') FROM changes
    WHERE changes.project = versions.project AND changes.action = 'deploy' AND changes.name = versions.function
        AND json_extract(changes.after, '$.version') = versions.number
        AND json_extract(changes.before, '$.version') < versions.number
    ORDER BY changes.sequence DESC LIMIT 1
);

-- That a pipeline drains is a setting.
UPDATE objects
SET settings = json_set(settings, '$.draining', json('true'), '$.remove_when_empty', json('true'))
WHERE kind = 'pipeline' AND name IN (
    SELECT each.value FROM notes, json_each(CAST(notes.body AS TEXT)) AS each
    WHERE notes.project = objects.project AND notes.name = 'draining pipelines'
);
DELETE FROM notes WHERE name = 'draining pipelines';
