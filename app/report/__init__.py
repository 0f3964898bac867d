"""A session as a document: pictures, HTML, PDF, notebook. No streamlit."""
