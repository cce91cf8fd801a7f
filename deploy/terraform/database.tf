resource "google_sql_database_instance" "main" {
  name                = "itemforge"
  database_version    = "POSTGRES_17"
  region              = var.region
  deletion_protection = true

  settings {
    tier              = var.database_tier
    edition           = "ENTERPRISE"
    availability_type = "REGIONAL"
    disk_autoresize   = true

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.main.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 14
      }
    }

    insights_config {
      query_insights_enabled = true
    }
  }

  depends_on = [google_service_networking_connection.services]
}

# The database's user and its password are made by hand, so that no secret is in the state:
#   gcloud sql users create itemforge --instance itemforge --password …
resource "google_sql_database" "main" {
  name     = "itemforge"
  instance = google_sql_database_instance.main.name
}
