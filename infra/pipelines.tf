# The pipelines, where the splitter reads them: pipelines/<name>.toml in the state.

locals {
  pipelines_dir = coalesce(var.pipelines_dir, "${path.module}/../examples")
  pipelines     = { for name in fileset(local.pipelines_dir, "*.toml") : trimsuffix(name, ".toml") => "${local.pipelines_dir}/${name}" if !endswith(name, ".run.toml") }

  # The location that a pipeline names for its model, instead of var.model_location.
  pipeline_locations = { for name, path in local.pipelines : name => try(regex("(?s)\\n\\[model\\][^\\[]*?\\nlocation\\s*=\\s*\"([^\"]+)\"", file(path))[0], var.model_location) }

  # The table under [target] of each, as `tasuki schema` names its file.
  tables         = { for name, path in local.pipelines : name => try(regex("(?s)\\n\\[target\\][^\\[]*?\\ntable\\s*=\\s*\"([^\"]+)\"", file(path))[0], "") }
  tables_missing = [for name, table in local.tables : "pipeline ${name} (${table == "" ? "no [target] table found" : "table ${table}"})" if !contains(keys(local.target_files), table)]
}

resource "google_storage_bucket_object" "pipeline" {
  for_each = local.pipelines

  bucket         = google_storage_bucket.bucket["state"].name
  name           = "pipelines/${each.key}.toml"
  source         = each.value
  source_md5hash = filemd5(each.value)
  content_type   = "application/toml"

  lifecycle {
    precondition {
      condition     = try(regex("(?m)^name\\s*=\\s*\"([^\"]+)\"", file(each.value))[0], "") == each.key
      error_message = "${each.value} must begin with name = \"${each.key}\": a pipeline's name and its file's are the same."
    }
    precondition {
      condition     = can(regex(local.residence, local.pipeline_locations[each.key]))
      error_message = "residency is ${var.residency}, but ${each.value} asks the model in ${local.pipeline_locations[each.key]}: choose a location inside, like ${local.residence_example}, or none."
    }
  }
}
