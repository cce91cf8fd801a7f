# What ItemForge needs on Google Cloud: cluster, database, buckets, registry, and an account with the least rights for each.
#   terraform init && terraform apply -var project=my-project -var host=items.my.org
# docs/operations.md has the same by hand.

terraform {
  required_version = ">= 1.6"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.30"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}
