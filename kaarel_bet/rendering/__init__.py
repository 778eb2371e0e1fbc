"""How findings are shown: on the terminal, as Markdown, as HTML with figures."""
