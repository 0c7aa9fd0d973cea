"""What the subcommands do, without any terminal code; workflows meet only through files."""
