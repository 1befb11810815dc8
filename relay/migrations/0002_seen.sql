-- When the owner was last seen, to within a day; 0 for not since this column came. What nobody owns any more is swept.

PRAGMA user_version = 2;

ALTER TABLE mailboxes ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
