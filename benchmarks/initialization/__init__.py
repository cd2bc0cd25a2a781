"""What deep nets reach from several initialisations."""
