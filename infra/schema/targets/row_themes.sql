-- Made by `tasuki schema`. Apply it with:
--   gcloud spanner databases ddl update DATABASE --instance=INSTANCE --ddl-file=row_themes.sql
-- Applying it again changes nothing.

CREATE TABLE IF NOT EXISTS `row_themes` (
  `id` STRING(1024) NOT NULL,
  `themes` ARRAY<STRING(MAX)>,
  `run` STRING(27) NOT NULL,
  `run_time` TIMESTAMP NOT NULL,
  `ordinal` INT64 NOT NULL,
  `source_time` TIMESTAMP NOT NULL,
  `model` STRING(MAX) NOT NULL,
  `fingerprint` STRING(MAX) NOT NULL,
  `prompt_tokens` INT64 NOT NULL,
  `output_tokens` INT64 NOT NULL,
  `thought_tokens` INT64 NOT NULL,
  `cached_tokens` INT64 NOT NULL,
  `cost` FLOAT64,
  `committed_at` TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (`id`);

ALTER TABLE `row_themes` ADD COLUMN IF NOT EXISTS `themes` ARRAY<STRING(MAX)>;

GRANT SELECT, INSERT, UPDATE ON TABLE `row_themes` TO ROLE loader;
GRANT SELECT ON TABLE `row_themes` TO ROLE splitter, reader;
