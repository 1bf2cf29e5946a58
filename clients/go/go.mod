module recsys-ingest/clients/go

go 1.22
