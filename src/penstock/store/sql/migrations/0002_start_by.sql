-- The moment by which a task must have started the first time; none once it has, and for most tasks.
ALTER TABLE tasks ADD COLUMN start_by REAL;
CREATE INDEX tasks_start_by ON tasks (project, start_by, id) WHERE start_by IS NOT NULL;
