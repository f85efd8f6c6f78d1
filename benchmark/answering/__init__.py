"""From trained heads to answers: kept beside a result, built again, and asked."""
