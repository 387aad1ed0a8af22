locals {
  labels = merge(var.labels, { app = var.prefix })

  # Service → the bucket whose new objects call it. A trigger of Cloud Storage filters by type and bucket only, so every hop
  # has a bucket of its own: a service that wrote where it listens would call itself.
  hops = {
    splitter  = "inbox"
    generator = "shards"
    loader    = "answers"
  }

  # Role IDs take no hyphens.
  role_prefix = replace(var.prefix, "-", "_")

  # What var.residency allows, of locations in small letters; and one to advise.
  residence         = { any = ".", eu = "^(eu$|europe-)", us = "^(us$|us-)", region = "^${var.region}$" }[var.residency]
  residence_example = { any = "global", eu = "eu", us = "us", region = var.region }[var.residency]
}
