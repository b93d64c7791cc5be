"""The ground floor: time, files, money and errors. Everything may import it; it imports nothing of ours."""
