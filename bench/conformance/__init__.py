"""What every attack and defense promises, asked of one method; and the plugin to start from."""
